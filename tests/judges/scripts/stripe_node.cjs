// Stripe's own Node SDK as a judge: our events by its verifier, our API by its client, and its signature for our verifier.
// Arguments: the folder with node_modules, and the JSON file of stripe_sdk.py.
const fs = require("fs");
const path = require("path");
const loaded = require(path.join(process.argv[2], "node_modules", "stripe"));
const Stripe = loaded.default || loaded;

async function main() {
  const given = JSON.parse(fs.readFileSync(process.argv[3], "utf8"));
  const at = new URL(given.base_url);
  const stripe = new Stripe(given.secret_key, { host: at.hostname, port: Number(at.port), protocol: "http", maxNetworkRetries: 0, telemetry: false });
  for (const message of given.messages) {
    const header = message.headers["stripe-signature"];
    const event = stripe.webhooks.constructEvent(message.body, header, given.webhook_secret);
    if (!event.id.startsWith("evt_")) throw new Error("no event");
    let refused = false;
    try { stripe.webhooks.constructEvent(message.body + " ", header, given.webhook_secret); } catch { refused = true; }
    if (!refused) throw new Error("an altered body was accepted");
  }
  const params = { amount: 1999, currency: "eur", allowed_payment_method_types: ["card"], metadata: { payonce_number: "node_1" } };
  const made = await stripe.paymentIntents.create(params, { idempotencyKey: "node-1" });
  const again = await stripe.paymentIntents.create(params, { idempotencyKey: "node-1" });
  if (made.id !== again.id) throw new Error("the key made two");
  try {
    await stripe.paymentIntents.create({ ...params, amount: 2000 }, { idempotencyKey: "node-1" });
    throw new Error("other parameters were accepted");
  } catch (error) {
    if (error.type !== "StripeIdempotencyError") throw error;
  }
  if ((await stripe.paymentIntents.cancel(made.id)).status !== "canceled") throw new Error("not cancelled");
  const payload = given.payload;
  const header = stripe.webhooks.generateTestHeaderString({ payload, secret: given.webhook_secret });
  console.log(JSON.stringify({ verified: given.messages.length, header }));
}
main().catch((error) => { console.error(error); process.exit(1); });
