def levels() -> list[str]: ...
def pairs() -> bool: ...

class Decode:
    def __init__(
        self,
        level: int,
        threads: int,
        queries: int,
        rows: int,
        heads: int,
        lanes: int,
        dim: int,
        page: int,
        first: int,
        base: int,
        begin: int,
        window: int,
        half: int,
        cos: int,
        sin: int,
        softcap: float,
    ) -> None: ...
    def add(
        self,
        kind: int,
        start: int,
        pages: int,
        ids: int,
        keys: int,
        values: int,
        key_min: int,
        key_step: int,
        value_min: int,
        value_step: int,
        groups: int,
    ) -> None: ...
    def read(self) -> None: ...
    def finish(self, sinks: int, out: int) -> None: ...

def place(
    threads: int,
    dtype: int,
    rows: int,
    heads: int,
    lanes: int,
    dim: int,
    page: int,
    half: int,
    query_half: int,
    queries: int,
    keys: int,
    values: int,
    query_row: int,
    query_head: int,
    key_row: int,
    key_head: int,
    value_row: int,
    value_head: int,
    key_cos: int,
    key_sin: int,
    query_cos: int,
    query_sin: int,
    scale: float,
    pages: int,
    places: int,
    place_lane: int,
    page_keys: int,
    page_values: int,
    out: int,
) -> None: ...

class Prefill:
    def __init__(
        self,
        level: int,
        threads: int,
        queries: int,
        rows: int,
        heads: int,
        lanes: int,
        dim: int,
        page: int,
        first: int,
        base: int,
        begin: int,
        window: int,
        half: int,
        cos: int,
        sin: int,
        softcap: float,
        narrow: bool,
        pairs: bool,
        sinks: int,
        chosen: int,
        chosen_rows: int,
        pages: int,
        out: int,
    ) -> None: ...
    def add(
        self,
        kind: int,
        start: int,
        pages: int,
        ids: int,
        keys: int,
        values: int,
        key_min: int,
        key_step: int,
        value_min: int,
        value_step: int,
        groups: int,
    ) -> None: ...
    def read(self) -> None: ...
    def finish(self) -> None: ...

def sketch(
    level: int,
    threads: int,
    queries: int,
    lanes: int,
    rows: int,
    pages: int,
    dim: int,
    slots: int,
    codes: int,
    low: int,
    step: int,
    codes_lane: int,
    codes_page: int,
    low_lane: int,
    low_page: int,
    step_lane: int,
    step_page: int,
    out: int,
) -> None: ...
def slotted(
    level: int,
    threads: int,
    queries: int,
    at: int,
    rows: int,
    heads: int,
    lanes: int,
    dim: int,
    slots: int,
    keys: int,
    key_lane: int,
    key_slot: int,
    kind: int,
    values: int,
    value_lane: int,
    value_slot: int,
    late: int,
    early: int,
    bias: int,
    window: float,
    softcap: float,
    learned: int,
    out: int,
    mass: int,
    recent: int,
    since: int,
    used: int,
    page: int,
    share: float,
) -> None: ...
def seal(
    level: int,
    threads: int,
    kind: int,
    pages: int,
    rows: int,
    columns: int,
    groups: int,
    bits: int,
    x: int,
    codes: int,
    low: int,
    step: int,
) -> bool: ...

class Linear:
    def __init__(self, level: int, kind: int, stored: int, columns: int, act: int) -> None: ...
    def add(self, weight: int, bias: int, rows: int) -> None: ...
    @staticmethod
    def widens(kind: int) -> bool: ...
    def in_bytes(self) -> bool: ...
    def pays(self) -> bool: ...
    def open(self, threads: int, start: int, stop: int, out: int) -> None: ...
    def run(self, threads: int, rows: int, x: int, *outs: int) -> None: ...

def rms_norm(
    level: int,
    threads: int,
    kind: int,
    rows: int,
    columns: int,
    x: int,
    weight: int,
    residual: int,
    sum: int,
    out: int,
    eps: float,
    plus_one: bool,
) -> None: ...
def narrow(level: int, threads: int, kind: int, n: int, source: int, to: int) -> None: ...
