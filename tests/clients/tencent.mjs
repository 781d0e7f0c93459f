// Speaks to a server with Tencent's own Node SDK, unmodified: one call a line in, one answer a line out, as tencent.py.
import readline from "node:readline";
import { parseArgs } from "node:util";
import common from "tencentcloud-sdk-nodejs-common";
import vod from "tencentcloud-sdk-nodejs-vod";

const { values: said } = parseArgs({
  options: {
    endpoint: { type: "string" },
    id: { type: "string" },
    secret: { type: "string" },
    method: { type: "string", default: "POST" },
    sign: { type: "string", default: "TC3-HMAC-SHA256" },
  },
});
const config = {
  credential: { secretId: said.id, secretKey: said.secret },
  region: "ap-guangzhou",
  profile: {
    signMethod: said.sign,
    httpProfile: { endpoint: said.endpoint, protocol: "http://", reqMethod: said.method, reqTimeout: 30 },
  },
};
const live = new common.CommonClient(said.endpoint, "2018-08-01", config);
const media = new vod.vod.v20180717.Client(config);

const ask = ({ service, action, params }) =>
  service === "live" ? live.request(action, params) : media[action](params);

for await (const line of readline.createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify({ answer: await ask(JSON.parse(line)) }));
  } catch (error) {
    console.log(JSON.stringify({ code: error.code ?? "", message: error.message, request_id: error.requestId ?? "" }));
  }
}
