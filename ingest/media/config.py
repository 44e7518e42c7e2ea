"""Settings of media: what may come, and how long it is kept. A device type's own `media_...` go before them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wire.devices import RateLimit
from wire.media import DEFAULT_LIMIT_BYTES, DEFAULT_MQTT_LIMIT_BYTES, MAX_LIMIT_BYTES, MAX_MQTT_LIMIT_BYTES

GIB = 1024**3
MAX_PIXELS = 1_000_000_000
Bytes = Annotated[int, Field(ge=0, le=2**60)]


class MediaConfig(BaseModel):
    """Each is `HEADWATER_<NAME>` in the environment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    media_url: str = Field(default="file:", pattern=r"^(file:$|s3://[^\x00-\x20]+$)")  # where blobs are kept
    media_access_key: str = ""  # of S3
    media_secret_key: str = ""
    media_limit_bytes: int = Field(default=DEFAULT_LIMIT_BYTES, ge=1_024, le=MAX_LIMIT_BYTES)  # of one blob
    media_mqtt_limit_bytes: int = Field(default=DEFAULT_MQTT_LIMIT_BYTES, ge=1_024, le=MAX_MQTT_LIMIT_BYTES)
    media_device_bytes: Bytes = GIB  # kept of each device; what would be more is refused
    media_tenant_bytes: Bytes = 10 * GIB  # of all devices of a tenant together
    media_rate: RateLimit = "messages 120:60"  # of each device
    media_tenant_rate: RateLimit = ""
    media_floor_bytes: Bytes = GIB  # of free disk that is left to telemetry: it goes on when media are refused
    media_keep_days: int | None = Field(default=None, ge=1, le=36_500)  # None: until the limits are reached
    media_keep_bytes: int | None = Field(default=None, ge=0)  # of each device: the oldest go first
    media_pixels: int = Field(default=50_000_000, ge=1, le=MAX_PIXELS)  # of a picture that a thumbnail is made of
