"""Drives segment-analytics-python against a collector: python drive_segment.py HOST WRITE_KEY."""

import sys

import segment.analytics as analytics

analytics.host, analytics.write_key = sys.argv[1:]
analytics.gzip = True
analytics.max_retries = 2
analytics.on_error = lambda error, items: sys.exit(f"{error}: {items}")

analytics.track(
    anonymous_id="device-1",
    message_id="view-1",
    event="Product Viewed",
    properties={"product_id": "tea", "price": 4.5, "currency": "EUR"},
)
analytics.identify(anonymous_id="device-1", user_id="anna", traits={"plan": "gold"})
analytics.page(user_id="anna", name="Home")
order = {
    "order_id": "o-1",
    "currency": "EUR",
    "products": [
        {"product_id": "tea", "price": 4.5, "quantity": 2},
        {"product_id": "cup", "price": 9, "quantity": 1},
    ],
}
analytics.track(user_id="anna", message_id="order-1", event="Order Completed", properties=order)
analytics.track(user_id="anna", event="Products Searched", properties={"query": "green tea"})
analytics.group(user_id="anna", group_id="g1")
analytics.alias(user_id="anna", previous_id="device-2")
analytics.shutdown()
