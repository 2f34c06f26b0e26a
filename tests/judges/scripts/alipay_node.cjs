// Run by test_alipay in the judge's own folder: the official Node SDK against our gateway, our signatures and our notifications.
// Argument: the same file as for the Python judge.
const { readFileSync } = require('node:fs');
const { AlipaySdk } = require(require.resolve('alipay-sdk', { paths: [process.cwd()] }));

const given = JSON.parse(readFileSync(process.argv[2], 'utf8'));
let passed = 0;

function check(what, holds, seen = '') {
  if (!holds) throw new Error(`${what}: ${JSON.stringify(seen)}`);
  passed += 1;
}

async function throws(what, promise, word) {
  try {
    const answer = await promise;
    check(`${what} was believed`, false, answer);
  } catch (error) {
    check(what, String(error.message).includes(word), error.message);
  }
}

function clientOf(account) {
  const config = {
    appId: account.app_id, privateKey: account.private_key, keyType: 'PKCS8', gateway: account.base_url,
    timeout: 10000, signType: 'RSA2',
  };
  if (account.app_cert) {
    return new AlipaySdk({
      ...config, appCertContent: account.app_cert, alipayPublicCertContent: account.alipay_cert,
      alipayRootCertContent: account.alipay_root_cert,
    });
  }
  return new AlipaySdk({ ...config, alipayPublicKey: account.alipay_public_key });
}

async function buyer(url, action = '') {
  const reply = await fetch(action ? `${url}/${action}` : url, { method: action ? 'POST' : 'GET' });
  return await reply.text();
}

async function run(name, account) {
  const sdk = clientOf(account);
  const number = `node_${name}`;
  const ask = (method, bizContent, more = {}) => sdk.exec(method, { ...more, bizContent }, { validateSign: true });

  const code = await ask('alipay.trade.precreate', { out_trade_no: number, total_amount: '12.34', subject: '书', time_expire: given.expire },
    { notify_url: account.notify_url });
  check('precreate', code.code === '10000', code);
  const missing = await ask('alipay.trade.query', { out_trade_no: number });
  check('no trade before the scan', missing.subCode === 'ACQ.TRADE_NOT_EXIST', missing);
  await buyer(code.qrCode);
  await buyer(code.qrCode, 'pay');
  const paid = await ask('alipay.trade.query', { out_trade_no: number });
  check('paid', paid.tradeStatus === 'TRADE_SUCCESS' && paid.totalAmount === '12.34', paid);
  const late = await ask('alipay.trade.close', { out_trade_no: number });
  check('close of paid', late.subCode === 'ACQ.TRADE_STATUS_ERROR', late);
  const refund = { out_trade_no: number, refund_amount: '12.34', out_request_no: 'r1' };
  const first = await ask('alipay.trade.refund', refund);
  check('refund', first.fundChange === 'Y', first);
  const again = await ask('alipay.trade.refund', refund);
  check('refund again', again.fundChange === 'N', again);
  const asked = await ask('alipay.trade.fastpay.refund.query', { out_trade_no: number, out_request_no: 'r1' });
  check('refund query', asked.refundStatus === 'REFUND_SUCCESS' && asked.refundAmount === '12.34', asked);
  const over = await ask('alipay.trade.query', { out_trade_no: number });
  check('given back', over.tradeStatus === 'TRADE_CLOSED', over);

  const page = sdk.pageExecute('alipay.trade.page.pay', 'GET', {
    bizContent: { out_trade_no: `${number}_page`, total_amount: '1.00', subject: 'book', product_code: 'FAST_INSTANT_TRADE_PAY' },
    notify_url: account.notify_url,
  });
  check('page', (await buyer(page)).includes('data-state="OPEN"'), page);
  const text = sdk.sdkExecute('alipay.trade.app.pay', {
    bizContent: { out_trade_no: `${number}_app`, total_amount: '1.00', subject: 'book', product_code: 'QUICK_MSECURITY_PAY' },
  });
  check('app', (await buyer(`${account.base_url}?${text}`)).includes('data-state="OPEN"'), text);
  const closed = await ask('alipay.trade.close', { out_trade_no: `${number}_page` });
  check('close', closed.code === '10000', closed);

  await throws('bad signature', ask('alipay.trade.query', { out_trade_no: 'judge_node_bad_signature' }), '验签失败');
  for (const fields of account.signed) {
    // A notification check with the application's own key: the SDK's reading of what a signature covers, `sign_type` included.
    const ours = new AlipaySdk({ appId: account.app_id, privateKey: account.private_key, keyType: 'PKCS8', alipayPublicKey: account.app_public_key });
    check('our signature', ours.checkNotifySignV2(fields) === true, fields);
    check('our altered request', ours.checkNotifySignV2({ ...fields, biz_content: fields.biz_content + ' ' }) === false, fields);
  }
  if (account.app_cert) {
    check('app_cert_sn', sdk.config.appCertSn === account.signed[0].app_cert_sn, sdk.config.appCertSn);
    check('root', sdk.config.alipayRootCertSn === account.signed[0].alipay_root_cert_sn, sdk.config.alipayRootCertSn);
  }
  for (const { fields, genuine } of account.notifications) {
    check('notification', sdk.checkNotifySignV2(fields) === genuine, fields);
    check('notification, old check', fields.subject.includes('%') || sdk.checkNotifySign(fields) === genuine, fields);
  }
}

(async () => {
  for (const [name, account] of Object.entries(given.accounts)) await run(name, account);
  console.log(passed);
  process.exit(0);
})().catch(error => { console.error(error); process.exit(1); });
