from __future__ import annotations

import pytest

from chassis.settings import SettingsError
from series import open_reader, open_writer


@pytest.mark.parametrize("url", ["oracle://x", "embedded", "", ":", "sqlite:", "EMBEDDED:"])
def test_unknown_engine_is_refused_and_the_known_ones_named(tmp_path, url):
    for opened in (open_writer, open_reader):
        with pytest.raises(SettingsError, match="embedded:"):
            opened(url, tmp_path)


def test_embedded_takes_nothing_after_the_colon(tmp_path):
    with pytest.raises(SettingsError, match="nothing after"):
        open_writer("embedded:/var/lib/x", tmp_path)


def test_engine_keeps_its_files_below_the_data_folder(tmp_path):
    open_writer("embedded:", tmp_path).close()

    assert (tmp_path / "series" / "catalog.db").exists()
