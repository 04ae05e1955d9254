"""What a queue may contain instead of a task: messages of any shape, and Redis items that are not messages."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import json
import lzma
import pickle
import uuid
import zlib
from typing import Any

SECRET = "Zebedee Quillfeather"
"""A customer's name, which no pattern recognises in a log."""

TASK = "tests.chaos.tasks.finish"

ZEROS = bytes(32 * 1024 * 1024)
GZIPPED = zlib.compress(ZEROS)
XZ_OF_A_GIGABYTE = lzma.compress(
    b"[[], {}, {}]", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**20}]
).replace(b"\x21\x01\x10", b"\x21\x01\x24", 1)
"""It claims that reading it needs a gigabyte. The checksum of its header is wrong."""

ID = "01890000-0000-7000-8000-00000000cafe"
"""A placeholder for a unique message id."""

DIGITS, BRACKETS = "9" * 5000, "[" * 100_000 + "]" * 100_000


@dataclasses.dataclass(frozen=True)
class Item:
    """A message: its body, changes to its headers (None removes one), and its content type."""

    body: bytes
    headers: dict[str, Any] | None = dataclasses.field(default_factory=dict)
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    gone: tuple[str, ...] = ()

    def fresh_body(self) -> bytes:
        return self.body.replace(ID.encode(), str(uuid.uuid4()).encode())

    def headers_of(self, case: str) -> dict[str, Any]:
        if self.headers is None:
            return {}
        whole = {"task": TASK, "id": f"task-{case}-{uuid.uuid4()}", "lang": "py", "case": case, **self.headers}
        return {name: value for name, value in whole.items() if name not in self.gone}


def body(args: Any = (), kwargs: Any = None, options: Any = None) -> bytes:
    known = {"message_id": ID, "order_id": "order-1", "name": SECRET}
    return json.dumps([args, known if kwargs is None else kwargs, {} if options is None else options]).encode()


def of_kwargs(**changed: Any) -> bytes:
    return body(kwargs={"message_id": ID, "order_id": "order-1", "name": SECRET, **changed})


def raw_kwargs(text: str) -> bytes:
    """Return a body whose keyword arguments have exactly this `message_id`."""
    return f'[[], {{"message_id": {text}, "order_id": "{SECRET}"}}, {{}}]'.encode()


def squeezed(content: bytes, content_type: str) -> Item:
    return Item(content, {"compression": content_type})


MESSAGES: dict[str, Item] = {
    "a number of 5,000 digits": Item(raw_kwargs(DIGITS)),
    "100,000 brackets": Item(BRACKETS.encode()),
    "100,000 brackets in an argument": Item(raw_kwargs(BRACKETS)),
    "60 brackets in an argument": Item(of_kwargs(deep=json.loads("[" * 60 + "]" * 60))),
    "NaN as its id": Item(raw_kwargs("NaN")),
    "NaN in an argument": Item(of_kwargs(amount=float("nan"))),
    "Infinity in an argument": Item(of_kwargs(amount=float("inf"))),
    "a lone surrogate as its id": Item(raw_kwargs('"\\ud800"')),
    "a lone surrogate in an argument": Item(of_kwargs(order_id="a\ud800")),
    "NUL in an argument": Item(of_kwargs(order_id="a\x00")),
    "NUL in a name of an argument": Item(of_kwargs(**{"a\x00": 1})),
    "no id": Item(body(kwargs={"order_id": SECRET})),
    "an id that is none": Item(of_kwargs(message_id="1042")),
    "a list as its id": Item(of_kwargs(message_id=[SECRET])),
    "a type of kombu's, with another value": Item(raw_kwargs('{"__type__": "datetime", "__value__": 5}')),
    "a type that kombu does not know": Item(raw_kwargs('{"__type__": "x", "__value__": 5}')),
    "an id of kombu's own type": Item(
        raw_kwargs(f'{{"__type__": "uuid", "__value__": {{"hex": "{uuid.uuid4().hex}"}}}}')
    ),
    "its id twice": Item(
        f'[[], {{"message_id": "{ID}", "message_id": 5, "order_id": "{SECRET}"}}, {{}}]'.encode()
    ),
    "an id in braces": Item(of_kwargs(message_id="{" + ID + "}")),
    "an id with a line end": Item(of_kwargs(message_id=ID + "\n")),
    "5,000 keyword arguments": Item(of_kwargs(**{f"k{number}": number for number in range(5000)}, bad="\x00")),
    "a name of an argument of 100,000 characters": Item(of_kwargs(**{"x" * 100_000: 1})),
    "the task's own argument": Item(of_kwargs(self="me", task="x", args=[], kwargs={}, bad=float("nan"))),
    "a type of kombu's within": Item(of_kwargs(at={"__type__": "datetime", "__value__": "2026-13-45"})),
    "a type of kombu's that is a list": Item(of_kwargs(at={"__type__": [], "__value__": 5})),
    "an object in base64 of kombu's": Item(of_kwargs(at={"__type__": "bytes", "__value__": "%"})),
    "a bomb of gzip": squeezed(GZIPPED, "application/x-gzip"),
    "a bomb of bzip2": squeezed(bz2.compress(ZEROS, 1), "application/x-bz2"),
    "a bomb of xz": squeezed(lzma.compress(ZEROS, preset=0), "application/x-lzma"),
    "a bomb by its alias": squeezed(GZIPPED, "zlib"),
    "gzip that is cut off": squeezed(zlib.compress(body())[:-9], "application/x-gzip"),
    "gzip that is none": squeezed(b"gzip?" + body(), "application/x-gzip"),
    "a gzip file": squeezed(gzip.compress(body()), "application/x-gzip"),
    "bzip2 that is cut off": squeezed(bz2.compress(body())[:-9], "application/x-bz2"),
    "xz that is cut off": squeezed(lzma.compress(body())[:-9], "application/x-lzma"),
    "xz that wants a gigabyte": squeezed(XZ_OF_A_GIGABYTE, "application/x-lzma"),
    "xz of the old kind, cut off": squeezed(
        lzma.compress(body(), lzma.FORMAT_ALONE)[:-9], "application/x-lzma"
    ),
    "zstd": squeezed(b"\x28\xb5\x2f\xfd\x04\x58", "application/zstd"),
    "nothing, compressed": squeezed(b"", "application/x-gzip"),
    "a number as the way to compress": Item(body(), {"compression": 5}),
    "a way to compress with NUL": Item(body(), {"compression": "gzip\x00"}),
    "a way to compress that nobody knows": squeezed(b"abc", "application/x-brotli"),
    "a list as the way to compress": Item(b"abc", {"compression": ["gzip"]}),
    "a bomb by its encoding": Item(GZIPPED, content_type="application/data", content_encoding="zlib"),
    "pickle": Item(pickle.dumps([[], {}, {}]), content_type="application/x-python-serialize"),
    "YAML": Item(b"- []\n- {}\n- {}\n", content_type="application/x-yaml"),
    "text": Item(SECRET.encode(), content_type="text/plain"),
    "no content type": Item(body(), content_type=None, content_encoding=None),
    "a character set of Python's own": Item(body(), content_encoding="unicode_escape"),
    "rot13": Item(body(), content_encoding="rot13"),
    "punycode": Item(body(), content_encoding="punycode"),
    "an encoding with NUL": Item(body(), content_encoding="utf-8\x00"),
    "an encoding of 250 characters": Item(body(), content_encoding="x" * 250),
    "a content type of many parts": Item(body(), content_type="application/json; charset=utf-7"),
    "msgpack": Item(
        b"\x93\xdd\xff\xff\xff\xff", content_type="application/x-msgpack", content_encoding="binary"
    ),
    "JSON with a mark": Item(b"\xef\xbb\xbf" + body()),
    "two bodies": Item(body() + body()),
    "an encoding that nobody knows": Item(body(), content_type="application/data", content_encoding="klingon"),
    "UTF-16": Item(body().decode().encode("utf-16"), content_encoding="utf-16"),
    "base64": Item(b"W1tdLCB7fSwge31d", content_encoding="base64"),
    "bytes": Item(b"\xff\xfe\x00\x80" * 100),
    "cut off": Item(body()[:-3]),
    "an empty body": Item(b""),
    "null": Item(b"null"),
    "a number": Item(b"5"),
    "an object": Item(b'{"task": "a", "args": {}}'),
    "a task of the first protocol": Item(
        json.dumps({"task": TASK, "id": ID, "args": 5, "kwargs": SECRET}).encode(), {}, gone=("task", "id")
    ),
    "two parts": Item(b"[[], {}]"),
    "arguments that are none": Item(body(args={}, kwargs=[])),
    "a body of 2 MB": Item(of_kwargs(more="x" * 2_000_000)),
    "20,000 arguments": Item(of_kwargs(more=list(range(20_000)))),
    "no headers": Item(body(), None),
    "no task": Item(body(), gone=("task",)),
    "a list as its task": Item(body(), {"task": [TASK]}),
    "a task that nobody knows": Item(body(), {"task": "orders.tasks.teleport"}),
    "a task with NUL": Item(body(), {"task": "orders\x00.tasks"}),
    "a number as its task id": Item(body(), {"id": 5}),
    "an object as its task id": Item(body(), {"id": {"a": 1}}),
    "a task id with NUL": Item(body(), {"id": "a\x00"}),
    "true as its retries": Item(body(), {"retries": True}),
    "half a retry": Item(body(), {"retries": 0.5}),
    "negative retries": Item(body(), {"retries": -1}),
    "retries in other digits": Item(body(), {"retries": "\u0663"}),
    "three time limits": Item(body(), {"timelimit": [1, 2, 3]}),
    "an object as its time limits": Item(body(), {"timelimit": {"hard": 1}}),
    "time limits beyond number": Item(body(), {"timelimit": [2**62, 2**62]}),
    "an ETA of an odd offset": Item(body(), {"eta": "2026-01-01T00:00:00+99:99"}),
    "an ETA before time": Item(body(), {"eta": "0001-01-01T00:00:00+14:00"}),
    "an ETA with NUL": Item(body(), {"eta": "2026-01-01T00:00:00\x00"}),
    "an end that is no time": Item(body(), {"expires": "never"}),
    "an end before time": Item(body(), {"expires": "0001-01-01T00:00:00+14:00"}),
    "a number as its end": Item(body(), {"expires": 2**40}),
    "an object as its group": Item(body(), {"group": {"a": 1}}),
    "a text as its place in a group": Item(body(), {"group": "g", "group_index": "first"}),
    "a list as its root": Item(body(), {"root_id": [1], "parent_id": {}}),
    "a text as its stamps": Item(body(), {"stamps": "a", "stamped_headers": "b"}),
    "a number as its stamped headers": Item(body(), {"stamps": {}, "stamped_headers": 5}),
    "a list as its origin": Item(body(), {"origin": [1]}),
    "a number as its shadow": Item(body(), {"shadow": 5}),
    "a number as what is shown of it": Item(body(), {"argsrepr": 5, "kwargsrepr": []}),
    "a list as its language": Item(body(), {"lang": ["py"]}),
    "a text as its retries": Item(body(), {"retries": "many"}),
    "retries beyond number": Item(body(), {"retries": 2**62}),
    "texts as its time limits": Item(body(), {"timelimit": ["soon", "later"]}),
    "negative time limits": Item(body(), {"timelimit": [-1, -5]}),
    "a number as its ETA": Item(body(), {"eta": 5}),
    "an ETA that is no time": Item(body(), {"eta": "tomorrow"}),
    "an ETA beyond time": Item(body(), {"eta": "9999-12-31T23:59:59.999999-12:00"}),
    "a list as its end": Item(body(), {"expires": [1]}),
    "a text as its generation": Item(body(), {"generation": "newest", "workflow": "tests.workflow"}),
    "an object as its workflow": Item(body(), {"generation": 0, "workflow": {"a": 1}}),
    "a number as what came back": Item(body(), {"came_back": 5}),
    "an object as its trace": Item(body(), {"traceparent": {"a": 1}}),
    "a text as its wait": Item(body(), {"eta": "2030-01-01T00:00:00+00:00", "wait_seconds": "long"}),
    "a chain that is none": Item(body(options={"chain": [5]})),
    "a chain that is a text": Item(body(options={"chain": "orders.tasks.charge"})),
    "callbacks that are none": Item(body(options={"callbacks": [{}], "errbacks": 5})),
    "a chain of itself, without names": Item(body(options={"chain": [{"task": None}]})),
    "a chord whose task is a number": Item(body(options={"chord": {"task": 5, "args": "x"}})),
    "an errback that is a text": Item(body(options={"errbacks": ["a"]})),
    "a list as its options": Item(body(options=[1])),
    "a chord that is none": Item(body(options={"chord": 5})),
    "200 long headers": Item(body(), {"id": 5} | {f"h{number}": "x" * 500 for number in range(200)}),
    "too many arguments": Item(body(args=[1, 2, 3])),
    "an order whose id is none": Item(of_kwargs(order_id="1042"), {"task": "orders.tasks.charge"}),
    "no order": Item(body(kwargs={"message_id": ID}), {"task": "orders.tasks.charge"}),
}
"""Each becomes one dead letter, in any queue of any broker."""


def envelope(*, gone: str = "", info: Any = None, **changed: Any) -> str:
    """Return the item that kombu makes of a message, with changes."""
    properties = {
        "delivery_tag": str(uuid.uuid4()),
        "delivery_info": {"exchange": "orders", "routing_key": "orders"} if info is None else info,
        "body_encoding": "base64",
        "delivery_mode": 2,
        "priority": 0,
    }
    item = {
        "body": "W10=",
        "headers": {"task": TASK, "id": "1"},
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": properties | changed.pop("properties", {}),
        **changed,
    }
    properties = item["properties"]
    properties.pop(gone, None)
    item.pop(gone, None)
    return json.dumps(item)


TAG = '"delivery_tag": "'

REDIS_ITEMS: dict[str, str | bytes] = {
    "a text": SECRET,
    "nothing": "",
    "bytes": b"\xff\x00\xfe" * 50,
    "null": "null",
    "a number": "5",
    "a number of 5,000 digits": DIGITS,
    "5,000 digits within": envelope().replace('"W10="', DIGITS),
    "100,000 brackets": BRACKETS,
    "100,000 brackets within": envelope().replace('"W10="', BRACKETS),
    "a list": "[1, 2]",
    "an object": "{}",
    "cut off": envelope()[:-5],
    "9 MB": envelope(headers={"task": "x" * 9_000_000}),
    "no properties": envelope(gone="properties"),
    "no tag": envelope(gone="delivery_tag"),
    "NaN as its tag": envelope(properties={"delivery_tag": float("nan")}),
    "a list as its tag": envelope(properties={"delivery_tag": ["a"]}),
    "a lone surrogate in its tag": envelope(properties={"delivery_tag": "a\ud800"}),
    "nowhere": envelope(gone="delivery_info"),
    "nowhere in particular": envelope(info={}),
    "a number as its queue": envelope(info={"exchange": 5, "routing_key": 6}),
    "a list as its headers": envelope(headers=[1]),
    "a text as its headers": envelope(headers=SECRET),
    "a number as its body": envelope(body=10**12, properties={"body_encoding": None}),
    "an object as its body": envelope(body={"a": SECRET}),
    "no base64": envelope(body="a"),
    "another encoding": envelope(properties={"body_encoding": "rot13"}),
    "a number as its type": envelope(**{"content-type": 5}),
    "its properties twice": envelope()[:-1] + ', "properties": 5}',
    "its body twice": envelope()[:-1] + ', "body": [1]}',
    "a mark before it": b"\xef\xbb\xbf" + envelope().encode(),
    "UTF-16": envelope().encode("utf-16"),
    "two items": envelope() + envelope(),
    "NUL behind it": envelope() + "\x00",
    "a number as its encoding": envelope(**{"content-encoding": 5}),
    "an object as how its body is written": envelope(properties={"body_encoding": {"a": 1}}),
    "a list as its delivery info": envelope(info=["orders", "orders"]),
    "an exchange with a lone surrogate": envelope(info={"exchange": "\udfff", "routing_key": "orders"}),
    "NUL in its tag": envelope(properties={"delivery_tag": "a\x00"}),
    "a list as its properties": envelope()[:-1] + ', "properties": [1]}',
    "true": "true",
    "a text in quotes": '"orders"',
    "brackets of objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "a hostile type": '{"__type__": "decimal", "__value__": {}}',
}
"""Each becomes one dead letter, in any list."""

UNACKNOWLEDGED: dict[str, str | bytes] = {
    "a text": f"{SECRET} again",
    "100,000 brackets": BRACKETS + " ",
    "a number": "55",
    "an object": '{"a": 1}',
    "two parts": '[{"b": 1}, "orders"]',
    "no message": '[{"c": 1}, "orders", "orders"]',
    "numbers": "[1, 2, 3]",
    "no tag": f'[{envelope(gone="delivery_tag")}, "orders", "orders"]',
}
"""Each becomes one dead letter although no worker took it from a list."""
