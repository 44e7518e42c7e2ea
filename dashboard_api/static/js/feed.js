// The live feed: one websocket, opened again with growing pauses, closed while nobody looks.

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15000;

// Integers beyond 2^53 would lose digits as numbers: they stay text.
function exact(_key, parsed, context) {
  const isUnsafe = typeof parsed === "number" && Number.isInteger(parsed) && !Number.isSafeInteger(parsed);
  return isUnsafe && context && /^-?\d+$/.test(context.source) ? context.source : parsed;
}

// A session that ended is answered with the log-in page, not with a badge that tries for ever.
async function leaveIfLoggedOut() {
  const answer = await fetch("/v1/session").catch(() => null);
  if (answer?.status === 401) location.reload();
}

export function watch(subscribe, onPoints, onReturn = () => {}) {
  const badge = document.querySelector("[data-live]");
  let socket = null;
  let pause = FIRST_PAUSE_MS;
  let timer = 0;
  let wasOpen = false;

  function show(state, text) {
    if (!badge) return;
    badge.hidden = false;
    badge.dataset.live = state;
    badge.querySelector("[data-live-text]").textContent = text;
  }

  function open() {
    clearTimeout(timer);
    if (socket || document.hidden) return;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}/v1/feed`);
    const own = socket;
    own.onopen = () => {
      own.send(JSON.stringify({ subscribe }));
      pause = FIRST_PAUSE_MS;
      show("on", "live");
      if (wasOpen) onReturn();
      wasOpen = true;
    };
    own.onmessage = (message) => {
      const points = JSON.parse(message.data, exact).points;
      if (points) onPoints(points);
    };
    own.onclose = () => {
      if (socket !== own) return;
      socket = null;
      if (document.hidden) return;
      show("off", "reconnecting");
      leaveIfLoggedOut();
      timer = setTimeout(open, pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    };
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return open();
    const own = socket;
    socket = null;
    if (own) own.close(1000);
  });
  show("off", "connecting");
  open();
}
