#!/bin/sh
# Serve the shop at $PENCHANT_SHOP; at the very first start make it, with one key beside it to be read once.
set -eu
shop=${PENCHANT_SHOP:-/data/shop}
if [ ! -f "$shop/shop.toml" ]; then
    mkdir -p "$shop"
    cp "${PENCHANT_SETTINGS:-/etc/penchant/shop.toml}" "$shop/shop.toml"
fi
if [ ! -f "$shop/keys.json" ]; then
    umask 077
    penchant keys create --shop "$shop" --name first --json \
        --scopes write --scopes serve --scopes manage --scopes govern > "$(dirname "$shop")/first-key.json"
fi
exec penchant serve --shop "$shop" --host "${PENCHANT_HOST:-0.0.0.0}" --port "${PENCHANT_PORT:-8000}" --log json
