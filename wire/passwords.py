"""Which passwords are the first that anybody would try: told by rules that know the habits, without a list to ship.

Those of the published lists of common passwords that have ten characters at all are words, names and years with digits
round them, walks over the keyboard, and repetitions (NIST SP 800-63B s. 3.1.1.2 demands that such are refused).
"""

from __future__ import annotations

import re

MIN_DISTINCT = 5
LONGEST_WALK = 0.75  # of the password: the rest is what people hang onto a walk
MIN_WALK = 4
_LEET = str.maketrans("0134578@$!|", "oleastbasil")
_ROWS = ("abcdefghijklmnopqrstuvwxyz", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop",
         "01234567890", "1q2w3e4r5t6y7u8i9o0p", "q1w2e3r4t5y6u7i8o9p0", "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
         "qazwsxedcrfvtgb", "zaq12wsxcde34rfvbgt5", "!@#$%^&*()")  # fmt: skip
_WALKS = (*_ROWS, *(row[::-1] for row in _ROWS))
_MAX_WALK = max(map(len, _ROWS))
_USUAL = """
abc access account admin administrator alexander amanda amsterdam andrea andrew angel anthony apple arsenal asdf
ashley austin baby banana baseball basketball batman beautiful berlin biteme blink bond buster butterfly canada
caroline change changeit changeme charlie chelsea chicken chocolate christian christine christmas company computer
cookie corvette country creative dallas daniel default demo device diamond dolphin dragon eagle elephant elizabeth
enter family ferrari flower football forever freedom friend friends fuckyou gateway george ginger google guest
guitar hammer hannah happy harley headwater hello hockey home hunter iceman iloveu iloveyou internet iot jackson
james jasmine jennifer jessica john jordan joshua justin killer king letmein liverpool login london love loveme
lovely maggie manager manchester marina martin master matrix matthew melissa mercedes merlin michael michelle
midnight monday money monkey monster mosquitto mother mustang mypass mypassword nicholas nicole nothing october
office oliver operator orange pass passphrase passw password patrick peanut people pepper phoenix platform please
pokemon princess private public purple qazwsx qwer qwert qwerty qwertz raspberry richard robert root samantha
samsung scooter secret secure security sensor september server shadow silver snoopy soccer spring starwars steelers
strong summer sunshine super superman support sweet sysadmin system tech telemetry temp temporary tenant test
tester thomas thunder tiger tigger trustno tweety user username vanessa victoria viewer virginia welcome whatever
william windows winter wizard yankees yellow you zaq
"""
_WORDS = frozenset(_USUAL.split())


def is_guessable(password: str) -> bool:
    """Tell whether a password is among the first that would be tried."""
    folded = password.casefold()
    if len(set(folded)) < MIN_DISTINCT or _repeats(folded) or _is_walk(folded):
        return True
    letters = re.sub(r"[\d\W_]+", "", folded)
    plain = re.sub(r"[\W_]+", "", re.sub(r"^[\W\d_]+|[\W\d_]+$", "", folded).translate(_LEET))
    return not letters or _is_of_words(letters) or _is_of_words(plain)


def _repeats(text: str) -> bool:
    """Tell whether a text is one part, again and again: `abc12abc12`."""
    return text in (text + text)[1:-1]


def _is_walk(text: str) -> bool:
    """Tell whether most of a text follows the alphabet, the digits or the keyboard."""
    walked = at = 0
    while at < len(text):
        most = min(len(text) - at, _MAX_WALK)
        length = next((n for n in range(most, MIN_WALK - 1, -1) if _is_in_a_row(text[at : at + n])), 0)
        walked += length
        at += length or 1
    return walked >= LONGEST_WALK * len(text)


def _is_in_a_row(part: str) -> bool:
    return any(part in walk for walk in _WALKS)


def _is_of_words(letters: str) -> bool:
    """Tell whether letters are one or two of the usual words, and nothing else."""
    ends = [at for at in range(1, len(letters)) if letters[:at] in _WORDS]
    return letters in _WORDS or any(letters[at:] in _WORDS for at in ends)
