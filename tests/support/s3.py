"""Looks into a bucket as an outsider: s3.py make|keys|objects|mirror|uploads|abort|get|put BUCKET [PREFIX [FOLDER]].

`put BUCKET KEY TEXT` stores an object, `get BUCKET KEY` prints it.

Endpoint, region and keys come from the usual AWS_* variables.
"""
import json
import pathlib
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

command, bucket, prefix, folder = (sys.argv[1:] + ["", ""])[:4]
s3 = boto3.client("s3", config=Config(retries={"max_attempts": 3}, s3={"addressing_style": "path"}))


def keys():
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def uploads():
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    return [(entry["Key"], entry["UploadId"]) for page in pages for entry in page.get("Uploads", [])]


if command == "make":
    s3.create_bucket(Bucket=bucket)
elif command == "keys":
    print(json.dumps(keys()))
elif command == "objects":
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    entries = [entry for page in pages for entry in page.get("Contents", [])]
    print(json.dumps({entry["Key"]: [entry["Size"], entry.get("StorageClass", "STANDARD")] for entry in entries}))
elif command == "mirror":
    for key in keys():
        path = pathlib.Path(folder) / key.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            s3.download_file(bucket, key, str(path))
        except ClientError as error:
            # What lies beside a growing file goes when that is whole: it may have gone since the list was made.
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                raise
elif command == "uploads":
    print(json.dumps(uploads()))
elif command == "get":
    print(s3.get_object(Bucket=bucket, Key=prefix)["Body"].read().decode(), end="")
elif command == "put":
    s3.put_object(Bucket=bucket, Key=prefix, Body=folder.encode())
elif command == "abort":
    for key, upload in uploads():
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
else:
    sys.exit(__doc__)
