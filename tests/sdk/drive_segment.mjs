// Drives @segment/analytics-node against a collector: node drive_segment.mjs HOST WRITE_KEY
import { Analytics } from "@segment/analytics-node";

const [host, writeKey] = process.argv.slice(2);
const analytics = new Analytics({ writeKey, host, maxEventsInBatch: 5, flushInterval: 100, disable: false });
analytics.on("error", (error) => { console.error(error); process.exitCode = 1; });

analytics.track({ anonymousId: "device-1", messageId: "view-1", event: "Product Viewed",
  properties: { product_id: "tea", price: 4.5, currency: "EUR" } });
analytics.identify({ anonymousId: "device-1", userId: "anna", traits: { plan: "gold" } });
analytics.page({ userId: "anna", name: "Home" });
analytics.track({ userId: "anna", messageId: "order-1", event: "Order Completed", properties: {
  order_id: "o-1", currency: "EUR",
  products: [{ product_id: "tea", price: 4.5, quantity: 2 }, { product_id: "cup", price: 9, quantity: 1 }] } });
analytics.track({ userId: "anna", event: "Products Searched", properties: { query: "green tea" } });
analytics.group({ userId: "anna", groupId: "g1" });
analytics.alias({ userId: "anna", previousId: "device-2" });
await analytics.closeAndFlush({ timeout: 10000 });
