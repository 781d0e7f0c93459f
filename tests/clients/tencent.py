"""Speaks to a server with Tencent's own Python SDK, unmodified: one call a line in, one answer a line out.

In:  {"service": "live", "action": "…", "params": {…}}
Out: {"answer": {…}} or {"code": "…", "message": "…", "request_id": "…"}
"""

import argparse
import asyncio
import json
import sys
import warnings

from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.live.v20180801 import live_client, live_client_async
from tencentcloud.live.v20180801 import models as live_models
from tencentcloud.vod.v20180717 import models as vod_models
from tencentcloud.vod.v20180717 import vod_client, vod_client_async

MODELS = {"live": live_models, "vod": vod_models}
CLIENTS = {
    False: {"live": live_client.LiveClient, "vod": vod_client.VodClient},
    True: {"live": live_client_async.LiveClient, "vod": vod_client_async.VodClient},
}


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--method", default="POST")
    parser.add_argument("--sign", default="TC3-HMAC-SHA256")
    parser.add_argument("--unsigned-payload", action="store_true")
    parser.add_argument("--asynchronous", action="store_true")
    return parser.parse_args()


def request_of(call):
    """Fields that the SDK's model lacks would be dropped with a warning: that is an error of the test."""
    request = getattr(MODELS[call["service"]], call["action"] + "Request")()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request._deserialize(call["params"])
    return request


def told(error):
    return {"code": error.get_code(), "message": error.get_message(), "request_id": error.get_request_id()}


def say(answer):
    print(json.dumps(answer), flush=True)


def main():
    said = arguments()
    profile = ClientProfile(
        httpProfile=HttpProfile(protocol="http", endpoint=said.endpoint, reqMethod=said.method, reqTimeout=30),
        signMethod=said.sign,
        language="en-US",
    )
    profile.unsignedPayload = said.unsigned_payload
    keys = credential.Credential(said.id, said.secret)
    clients = {
        service: kind(keys, "ap-guangzhou", profile) for service, kind in CLIENTS[said.asynchronous].items()
    }

    def ask(call):
        return getattr(clients[call["service"]], call["action"])(request_of(call))

    async def ask_all():
        for line in sys.stdin:
            try:
                answer = await ask(json.loads(line))
                say({"answer": json.loads(answer.to_json_string())})
            except TencentCloudSDKException as error:
                say(told(error))

    if said.asynchronous:
        asyncio.run(ask_all())
        return
    for line in sys.stdin:
        try:
            say({"answer": json.loads(ask(json.loads(line)).to_json_string())})
        except TencentCloudSDKException as error:
            say(told(error))


main()
