// Drives @rudderstack/rudder-sdk-node against a collector: node drive_rudderstack.mjs HOST WRITE_KEY
import RudderAnalytics from "@rudderstack/rudder-sdk-node";

const [host, writeKey] = process.argv.slice(2);
const client = new RudderAnalytics(writeKey, { dataPlaneUrl: host, flushInterval: 100, flushAt: 5, gzip: true });

client.track({ anonymousId: "device-1", messageId: "view-1", event: "Product Viewed",
  properties: { product_id: "tea", price: 4.5, currency: "EUR" } });
client.identify({ anonymousId: "device-1", userId: "anna", traits: { plan: "gold" } });
client.page({ userId: "anna", name: "Home" });
client.track({ userId: "anna", messageId: "order-1", event: "Order Completed", properties: {
  order_id: "o-1", currency: "EUR",
  products: [{ product_id: "tea", price: 4.5, quantity: 2 }, { product_id: "cup", price: 9, quantity: 1 }] } });
client.track({ userId: "anna", event: "Products Searched", properties: { query: "green tea" } });
client.group({ userId: "anna", groupId: "g1" });
client.alias({ userId: "anna", previousId: "device-2" });
for (let times = 0; times < 4; times++) await client.flush();  // each sends at most flushAt messages
process.exit(0);
