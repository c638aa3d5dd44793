// Written by `cargo xtask protocol` from extension/protocol.

export const HOST_NAME = "com.doppler.host";
export const PROTOCOL = 1;
export const FORWARDED = ["models.list", "models.open", "models.close", "read"];
