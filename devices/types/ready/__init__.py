"""Device types that come with the platform: one JSON file each, read when somebody asks."""

from __future__ import annotations

from pathlib import Path

from wire.devices import DeviceTypeSpec

FOLDER = Path(__file__).parent


def read_all() -> dict[str, DeviceTypeSpec]:
    """Give the shipped types by name."""
    files = sorted(FOLDER.glob("*.json"))
    return {file.stem: DeviceTypeSpec.model_validate_json(file.read_bytes()) for file in files}
