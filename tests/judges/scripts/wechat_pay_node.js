// wechatpay-axios-plugin as a shop's client of the simulated WeChat Pay. Prints what it saw as one line of JSON.
// Argument: a JSON file with the account, the bank's control address, and messages to judge.
const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");

const load = createRequire(path.join(process.cwd(), "package.json"));
const { Wechatpay, Formatter, Rsa, Aes } = load("wechatpay-axios-plugin");

const given = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const { account, control } = given;
const seen = {};

async function steer(call, fields) {
  const reply = await fetch(`${control.url}/_ctl/${call}`, {
    method: "POST",
    headers: { authorization: `Bearer ${control.token}`, "content-type": "application/json" },
    body: JSON.stringify({ account: account.name, ...fields }),
  });
  if (reply.status !== 200) throw new Error(await reply.text());
}

const certs = Object.fromEntries(
  Object.entries(account.verifiers).map(([serial, pem]) => [serial, Rsa.from(pem, Rsa.KEY_TYPE_PUBLIC)]),
);
const wxpay = new Wechatpay({
  mchid: account.mchid, serial: account.serial, privateKey: account.private_key, certs,
  secret: account.apiv3_key, baseURL: `${account.base_url}/`, timeout: 20000,
});

async function answer(call) {
  try {
    const { status, data } = await call();
    return [status, data || {}];
  } catch (error) {
    const data = error.response && error.response.data;
    const coded = data && typeof data === "object" && data.code && /^[A-Z_]+$/.test(data.code);
    return coded ? [error.response.status, data.code] : [0, String(error.code || error.message)];
  }
}

const orders = wxpay.v3.pay.transactions;
const order = (number, total = 1200, kind = "native", more = {}) => answer(() => orders[kind].post({
  appid: account.appid, mchid: account.mchid, description: "A book", out_trade_no: number,
  notify_url: "https://shop.example/notify/", amount: { total }, ...more,
}));
const query = (number) => answer(() => orders.outTradeNo.$number$.get({ params: { mchid: account.mchid }, number }));
const close = (number) => answer(() => orders.outTradeNo.$number$.close.post({ mchid: account.mchid }, { number }));

async function main() {
  const [number, other, closed] = given.numbers;
  seen.order = await order(number);
  seen.order_again = await order(number);
  seen.order_changed = await order(number, 1300);
  seen.jsapi = await order(`${number}j`, 1200, "jsapi", { payer: { openid: "oBuyer0001" } });
  seen.app = await order(`${number}a`, 1200, "app");
  seen.h5 = await order(`${number}h`, 1200, "h5", { scene_info: { payer_client_ip: "203.0.113.7", h5_info: { type: "Wap" } } });
  seen.open = await query(number);
  seen.unknown = await query("never_ordered");
  await steer("pay", { number });
  seen.paid = await query(number);
  seen.close_paid = await close(number);
  await order(closed);
  seen.close = [await close(closed), await close(closed), await close("never_ordered")];
  seen.closed = await query(closed);
  const refunds = wxpay.v3.refund.domestic.refunds;
  const refund = (amount) => answer(() => refunds.post({
    out_trade_no: number, out_refund_no: `${number}r`, amount: { refund: amount, total: 1200, currency: "CNY" },
  }));
  const askRefund = (refundNumber) => answer(() => refunds.$number$.get({ number: refundNumber }));
  seen.refund = [await refund(500), await refund(500)];
  seen.refund_changed = await refund(400);
  seen.refund_query = await askRefund(`${number}r`);
  seen.refund_unknown = await askRefund("never_asked");
  seen.refunded = await query(number);
  await order(other);
  for (const fault of ["bad_signature", "no_signature", "stale_timestamp", "error_after"]) {
    await steer("faults", { op: "query", do: fault, number: other });
    seen[fault] = await query(other);
  }
  await steer("faults", { op: "query", do: "bad_signature", number: other, kind: "other_secret" });
  seen.other_secret = await query(other);

  const read = ({ headers, body }) => {
    try {
      const key = certs[headers["wechatpay-serial"]];
      const text = Formatter.response(headers["wechatpay-timestamp"], headers["wechatpay-nonce"], body);
      if (!key || !Rsa.verify(text, headers["wechatpay-signature"], key)) return [0, "not verified"];
      const { event_type: event, resource } = JSON.parse(body);
      const opened = Aes.AesGcm.decrypt(resource.ciphertext, account.apiv3_key, resource.nonce, resource.associated_data);
      return [1, event, JSON.parse(opened)];
    } catch (error) {
      return [0, error.message];
    }
  };
  seen.genuine = given.genuine.map(read);
  seen.forged = Object.fromEntries(Object.entries(given.forged).map(([name, message]) => [name, read(message)]));
  const merchant = Rsa.from(account.certificate, Rsa.KEY_TYPE_PUBLIC);
  // The adapter's own requests: what it signed, judged by somebody else's reading of the rules.
  seen.requests = given.requests.map(({ method, target, body, timestamp, nonce, signature }) =>
    Rsa.verify(Formatter.request(method, target, timestamp, nonce, body || undefined), signature, merchant));
  seen.signed = given.to_sign.map((fields) => Rsa.sign(Formatter.joinedByLineFeed(...fields), Rsa.from(account.private_key)));
  console.log(JSON.stringify(seen));
}

main().catch((error) => { console.error(error); process.exit(1); });
