from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_TICKS: _ClassVar[Stage]
    STAGE_BARS: _ClassVar[Stage]
    STAGE_FEATURES: _ClassVar[Stage]
    STAGE_REGIMES: _ClassVar[Stage]
    STAGE_PREDICTIONS: _ClassVar[Stage]
    STAGE_SIGNALS: _ClassVar[Stage]
    STAGE_FILLS: _ClassVar[Stage]
    STAGE_EQUITY: _ClassVar[Stage]

class Side(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIDE_UNSPECIFIED: _ClassVar[Side]
    SIDE_BUY: _ClassVar[Side]
    SIDE_SELL: _ClassVar[Side]

class Flag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FLAG_UNSPECIFIED: _ClassVar[Flag]
    FLAG_ACCEPTED: _ClassVar[Flag]
    FLAG_QUARANTINED: _ClassVar[Flag]

class VolTag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOL_TAG_UNSPECIFIED: _ClassVar[VolTag]
    VOL_TAG_LOW: _ClassVar[VolTag]
    VOL_TAG_MID: _ClassVar[VolTag]
    VOL_TAG_HIGH: _ClassVar[VolTag]

class TrendTag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TREND_TAG_UNSPECIFIED: _ClassVar[TrendTag]
    TREND_TAG_RANGE: _ClassVar[TrendTag]
    TREND_TAG_TREND: _ClassVar[TrendTag]

class VolRegime(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOL_REGIME_UNSPECIFIED: _ClassVar[VolRegime]
    VOL_REGIME_LOW: _ClassVar[VolRegime]
    VOL_REGIME_NORMAL: _ClassVar[VolRegime]
    VOL_REGIME_HIGH: _ClassVar[VolRegime]
    VOL_REGIME_EXTREME: _ClassVar[VolRegime]

class CusumAlarm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CUSUM_ALARM_UNSPECIFIED: _ClassVar[CusumAlarm]
    CUSUM_ALARM_UP: _ClassVar[CusumAlarm]
    CUSUM_ALARM_DOWN: _ClassVar[CusumAlarm]

class BocpdAlarm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BOCPD_ALARM_UNSPECIFIED: _ClassVar[BocpdAlarm]
    BOCPD_ALARM_RECENT: _ClassVar[BocpdAlarm]
    BOCPD_ALARM_DROP: _ClassVar[BocpdAlarm]
    BOCPD_ALARM_BOTH: _ClassVar[BocpdAlarm]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_HOLD: _ClassVar[Action]
    ACTION_BUY: _ClassVar[Action]
    ACTION_SELL: _ClassVar[Action]

class FillReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILL_REASON_UNSPECIFIED: _ClassVar[FillReason]
    FILL_REASON_SIGNAL: _ClassVar[FillReason]
    FILL_REASON_LOSS_LIMIT: _ClassVar[FillReason]
    FILL_REASON_INSTRUMENT_ENDED: _ClassVar[FillReason]
STAGE_UNSPECIFIED: Stage
STAGE_TICKS: Stage
STAGE_BARS: Stage
STAGE_FEATURES: Stage
STAGE_REGIMES: Stage
STAGE_PREDICTIONS: Stage
STAGE_SIGNALS: Stage
STAGE_FILLS: Stage
STAGE_EQUITY: Stage
SIDE_UNSPECIFIED: Side
SIDE_BUY: Side
SIDE_SELL: Side
FLAG_UNSPECIFIED: Flag
FLAG_ACCEPTED: Flag
FLAG_QUARANTINED: Flag
VOL_TAG_UNSPECIFIED: VolTag
VOL_TAG_LOW: VolTag
VOL_TAG_MID: VolTag
VOL_TAG_HIGH: VolTag
TREND_TAG_UNSPECIFIED: TrendTag
TREND_TAG_RANGE: TrendTag
TREND_TAG_TREND: TrendTag
VOL_REGIME_UNSPECIFIED: VolRegime
VOL_REGIME_LOW: VolRegime
VOL_REGIME_NORMAL: VolRegime
VOL_REGIME_HIGH: VolRegime
VOL_REGIME_EXTREME: VolRegime
CUSUM_ALARM_UNSPECIFIED: CusumAlarm
CUSUM_ALARM_UP: CusumAlarm
CUSUM_ALARM_DOWN: CusumAlarm
BOCPD_ALARM_UNSPECIFIED: BocpdAlarm
BOCPD_ALARM_RECENT: BocpdAlarm
BOCPD_ALARM_DROP: BocpdAlarm
BOCPD_ALARM_BOTH: BocpdAlarm
ACTION_UNSPECIFIED: Action
ACTION_HOLD: Action
ACTION_BUY: Action
ACTION_SELL: Action
FILL_REASON_UNSPECIFIED: FillReason
FILL_REASON_SIGNAL: FillReason
FILL_REASON_LOSS_LIMIT: FillReason
FILL_REASON_INSTRUMENT_ENDED: FillReason

class ListSymbolsRequest(_message.Message):
    __slots__ = ("first", "after")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    first: int
    after: str
    def __init__(self, first: _Optional[int] = ..., after: _Optional[str] = ...) -> None: ...

class ListSymbolsResponse(_message.Message):
    __slots__ = ("symbols",)
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, symbols: _Optional[_Iterable[str]] = ...) -> None: ...

class GetLatestRequest(_message.Message):
    __slots__ = ("symbols", "stages")
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    stages: _containers.RepeatedScalarFieldContainer[Stage]
    def __init__(self, symbols: _Optional[_Iterable[str]] = ..., stages: _Optional[_Iterable[_Union[Stage, str]]] = ...) -> None: ...

class GetLatestResponse(_message.Message):
    __slots__ = ("symbols", "cache_unavailable")
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    CACHE_UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedCompositeFieldContainer[Symbol]
    cache_unavailable: bool
    def __init__(self, symbols: _Optional[_Iterable[_Union[Symbol, _Mapping]]] = ..., cache_unavailable: _Optional[bool] = ...) -> None: ...

class Symbol(_message.Message):
    __slots__ = ("name", "staleness", "price", "bar", "features", "regime", "prediction", "signal", "fill", "equity")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    BAR_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    REGIME_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    EQUITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    staleness: float
    price: Price
    bar: Bar
    features: Features
    regime: Regime
    prediction: Prediction
    signal: Signal
    fill: Fill
    equity: Equity
    def __init__(self, name: _Optional[str] = ..., staleness: _Optional[float] = ..., price: _Optional[_Union[Price, _Mapping]] = ..., bar: _Optional[_Union[Bar, _Mapping]] = ..., features: _Optional[_Union[Features, _Mapping]] = ..., regime: _Optional[_Union[Regime, _Mapping]] = ..., prediction: _Optional[_Union[Prediction, _Mapping]] = ..., signal: _Optional[_Union[Signal, _Mapping]] = ..., fill: _Optional[_Union[Fill, _Mapping]] = ..., equity: _Optional[_Union[Equity, _Mapping]] = ...) -> None: ...

class ListRowsRequest(_message.Message):
    __slots__ = ("stage", "symbol", "from_ts", "to_ts", "first", "after", "last", "before", "as_of")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    FROM_TS_FIELD_NUMBER: _ClassVar[int]
    TO_TS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    stage: Stage
    symbol: str
    from_ts: int
    to_ts: int
    first: int
    after: str
    last: int
    before: str
    as_of: AsOf
    def __init__(self, stage: _Optional[_Union[Stage, str]] = ..., symbol: _Optional[str] = ..., from_ts: _Optional[int] = ..., to_ts: _Optional[int] = ..., first: _Optional[int] = ..., after: _Optional[str] = ..., last: _Optional[int] = ..., before: _Optional[str] = ..., as_of: _Optional[_Union[AsOf, _Mapping]] = ...) -> None: ...

class AsOf(_message.Message):
    __slots__ = ("event_time", "known_at")
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    event_time: int
    known_at: int
    def __init__(self, event_time: _Optional[int] = ..., known_at: _Optional[int] = ...) -> None: ...

class ListRowsResponse(_message.Message):
    __slots__ = ("rows", "has_next_page", "has_previous_page", "start_cursor", "end_cursor")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    HAS_NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    HAS_PREVIOUS_PAGE_FIELD_NUMBER: _ClassVar[int]
    START_CURSOR_FIELD_NUMBER: _ClassVar[int]
    END_CURSOR_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str
    end_cursor: str
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., has_next_page: _Optional[bool] = ..., has_previous_page: _Optional[bool] = ..., start_cursor: _Optional[str] = ..., end_cursor: _Optional[str] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("stage", "symbols")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    stage: Stage
    symbols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, stage: _Optional[_Union[Stage, str]] = ..., symbols: _Optional[_Iterable[str]] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("row", "dropped")
    ROW_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    row: Row
    dropped: int
    def __init__(self, row: _Optional[_Union[Row, _Mapping]] = ..., dropped: _Optional[int] = ...) -> None: ...

class ListServicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListServicesResponse(_message.Message):
    __slots__ = ("services",)
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[Service]
    def __init__(self, services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("name", "ok", "seconds", "error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    ok: bool
    seconds: float
    error: str
    def __init__(self, name: _Optional[str] = ..., ok: _Optional[bool] = ..., seconds: _Optional[float] = ..., error: _Optional[str] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("price", "bar", "features", "regime", "prediction", "signal", "fill", "equity")
    PRICE_FIELD_NUMBER: _ClassVar[int]
    BAR_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    REGIME_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    EQUITY_FIELD_NUMBER: _ClassVar[int]
    price: Price
    bar: Bar
    features: Features
    regime: Regime
    prediction: Prediction
    signal: Signal
    fill: Fill
    equity: Equity
    def __init__(self, price: _Optional[_Union[Price, _Mapping]] = ..., bar: _Optional[_Union[Bar, _Mapping]] = ..., features: _Optional[_Union[Features, _Mapping]] = ..., regime: _Optional[_Union[Regime, _Mapping]] = ..., prediction: _Optional[_Union[Prediction, _Mapping]] = ..., signal: _Optional[_Union[Signal, _Mapping]] = ..., fill: _Optional[_Union[Fill, _Mapping]] = ..., equity: _Optional[_Union[Equity, _Mapping]] = ...) -> None: ...

class Price(_message.Message):
    __slots__ = ("partition", "offset", "index", "symbol", "ts", "known_at", "price", "size", "side", "bid", "ask", "bid_size", "ask_size", "open", "high", "low", "id", "flag", "session", "life", "scale", "volume_scale", "stale", "gap")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    BID_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    BID_SIZE_FIELD_NUMBER: _ClassVar[int]
    ASK_SIZE_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_SCALE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    index: int
    symbol: str
    ts: int
    known_at: int
    price: float
    size: float
    side: Side
    bid: float
    ask: float
    bid_size: float
    ask_size: float
    open: float
    high: float
    low: float
    id: int
    flag: Flag
    session: int
    life: int
    scale: float
    volume_scale: float
    stale: int
    gap: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., index: _Optional[int] = ..., symbol: _Optional[str] = ..., ts: _Optional[int] = ..., known_at: _Optional[int] = ..., price: _Optional[float] = ..., size: _Optional[float] = ..., side: _Optional[_Union[Side, str]] = ..., bid: _Optional[float] = ..., ask: _Optional[float] = ..., bid_size: _Optional[float] = ..., ask_size: _Optional[float] = ..., open: _Optional[float] = ..., high: _Optional[float] = ..., low: _Optional[float] = ..., id: _Optional[int] = ..., flag: _Optional[_Union[Flag, str]] = ..., session: _Optional[int] = ..., life: _Optional[int] = ..., scale: _Optional[float] = ..., volume_scale: _Optional[float] = ..., stale: _Optional[int] = ..., gap: _Optional[int] = ...) -> None: ...

class Bar(_message.Message):
    __slots__ = ("partition", "offset", "index", "symbol", "ts", "known_at", "open", "high", "low", "close", "volume", "notional", "vwap", "n", "trigger_ts", "exec_price", "exec_bid", "exec_ask", "exec_ts", "session", "life", "scale", "volume_scale", "stale", "gap")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    NOTIONAL_FIELD_NUMBER: _ClassVar[int]
    VWAP_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_TS_FIELD_NUMBER: _ClassVar[int]
    EXEC_PRICE_FIELD_NUMBER: _ClassVar[int]
    EXEC_BID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ASK_FIELD_NUMBER: _ClassVar[int]
    EXEC_TS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_SCALE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    index: int
    symbol: str
    ts: int
    known_at: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    notional: float
    vwap: float
    n: int
    trigger_ts: int
    exec_price: float
    exec_bid: float
    exec_ask: float
    exec_ts: int
    session: int
    life: int
    scale: float
    volume_scale: float
    stale: int
    gap: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., index: _Optional[int] = ..., symbol: _Optional[str] = ..., ts: _Optional[int] = ..., known_at: _Optional[int] = ..., open: _Optional[float] = ..., high: _Optional[float] = ..., low: _Optional[float] = ..., close: _Optional[float] = ..., volume: _Optional[float] = ..., notional: _Optional[float] = ..., vwap: _Optional[float] = ..., n: _Optional[int] = ..., trigger_ts: _Optional[int] = ..., exec_price: _Optional[float] = ..., exec_bid: _Optional[float] = ..., exec_ask: _Optional[float] = ..., exec_ts: _Optional[int] = ..., session: _Optional[int] = ..., life: _Optional[int] = ..., scale: _Optional[float] = ..., volume_scale: _Optional[float] = ..., stale: _Optional[int] = ..., gap: _Optional[int] = ...) -> None: ...

class Features(_message.Message):
    __slots__ = ("partition", "offset", "index", "symbol", "ts", "known_at", "bar_ret_1", "bar_ret_20", "bar_ewma_vol", "realized_vol_20", "parkinson_20", "garman_klass_20", "yang_zhang_20", "rsi_14", "macd_line", "macd_signal", "macd_hist", "boll_z_20", "natr_14", "adx_14", "donchian_pos_20", "efficiency_ratio_10", "roc_10", "volume_z_20", "vwap_dev_20", "amihud_20", "autocorr1_50", "variance_ratio_5_50", "drawdown", "beta_60", "corr_60", "ret_1", "ret_20", "ewma_vol", "realized_vol_50", "momentum_20", "tick_vwap_dev_50", "trade_imbalance_50", "microprice_dev", "queue_imbalance", "spread_bp", "ofi_50", "size_z_50", "tick_intensity", "tod_sin", "tod_cos")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    BAR_RET_1_FIELD_NUMBER: _ClassVar[int]
    BAR_RET_20_FIELD_NUMBER: _ClassVar[int]
    BAR_EWMA_VOL_FIELD_NUMBER: _ClassVar[int]
    REALIZED_VOL_20_FIELD_NUMBER: _ClassVar[int]
    PARKINSON_20_FIELD_NUMBER: _ClassVar[int]
    GARMAN_KLASS_20_FIELD_NUMBER: _ClassVar[int]
    YANG_ZHANG_20_FIELD_NUMBER: _ClassVar[int]
    RSI_14_FIELD_NUMBER: _ClassVar[int]
    MACD_LINE_FIELD_NUMBER: _ClassVar[int]
    MACD_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    MACD_HIST_FIELD_NUMBER: _ClassVar[int]
    BOLL_Z_20_FIELD_NUMBER: _ClassVar[int]
    NATR_14_FIELD_NUMBER: _ClassVar[int]
    ADX_14_FIELD_NUMBER: _ClassVar[int]
    DONCHIAN_POS_20_FIELD_NUMBER: _ClassVar[int]
    EFFICIENCY_RATIO_10_FIELD_NUMBER: _ClassVar[int]
    ROC_10_FIELD_NUMBER: _ClassVar[int]
    VOLUME_Z_20_FIELD_NUMBER: _ClassVar[int]
    VWAP_DEV_20_FIELD_NUMBER: _ClassVar[int]
    AMIHUD_20_FIELD_NUMBER: _ClassVar[int]
    AUTOCORR1_50_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_RATIO_5_50_FIELD_NUMBER: _ClassVar[int]
    DRAWDOWN_FIELD_NUMBER: _ClassVar[int]
    BETA_60_FIELD_NUMBER: _ClassVar[int]
    CORR_60_FIELD_NUMBER: _ClassVar[int]
    RET_1_FIELD_NUMBER: _ClassVar[int]
    RET_20_FIELD_NUMBER: _ClassVar[int]
    EWMA_VOL_FIELD_NUMBER: _ClassVar[int]
    REALIZED_VOL_50_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_20_FIELD_NUMBER: _ClassVar[int]
    TICK_VWAP_DEV_50_FIELD_NUMBER: _ClassVar[int]
    TRADE_IMBALANCE_50_FIELD_NUMBER: _ClassVar[int]
    MICROPRICE_DEV_FIELD_NUMBER: _ClassVar[int]
    QUEUE_IMBALANCE_FIELD_NUMBER: _ClassVar[int]
    SPREAD_BP_FIELD_NUMBER: _ClassVar[int]
    OFI_50_FIELD_NUMBER: _ClassVar[int]
    SIZE_Z_50_FIELD_NUMBER: _ClassVar[int]
    TICK_INTENSITY_FIELD_NUMBER: _ClassVar[int]
    TOD_SIN_FIELD_NUMBER: _ClassVar[int]
    TOD_COS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    index: int
    symbol: str
    ts: int
    known_at: int
    bar_ret_1: float
    bar_ret_20: float
    bar_ewma_vol: float
    realized_vol_20: float
    parkinson_20: float
    garman_klass_20: float
    yang_zhang_20: float
    rsi_14: float
    macd_line: float
    macd_signal: float
    macd_hist: float
    boll_z_20: float
    natr_14: float
    adx_14: float
    donchian_pos_20: float
    efficiency_ratio_10: float
    roc_10: float
    volume_z_20: float
    vwap_dev_20: float
    amihud_20: float
    autocorr1_50: float
    variance_ratio_5_50: float
    drawdown: float
    beta_60: float
    corr_60: float
    ret_1: float
    ret_20: float
    ewma_vol: float
    realized_vol_50: float
    momentum_20: float
    tick_vwap_dev_50: float
    trade_imbalance_50: float
    microprice_dev: float
    queue_imbalance: float
    spread_bp: float
    ofi_50: float
    size_z_50: float
    tick_intensity: float
    tod_sin: float
    tod_cos: float
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., index: _Optional[int] = ..., symbol: _Optional[str] = ..., ts: _Optional[int] = ..., known_at: _Optional[int] = ..., bar_ret_1: _Optional[float] = ..., bar_ret_20: _Optional[float] = ..., bar_ewma_vol: _Optional[float] = ..., realized_vol_20: _Optional[float] = ..., parkinson_20: _Optional[float] = ..., garman_klass_20: _Optional[float] = ..., yang_zhang_20: _Optional[float] = ..., rsi_14: _Optional[float] = ..., macd_line: _Optional[float] = ..., macd_signal: _Optional[float] = ..., macd_hist: _Optional[float] = ..., boll_z_20: _Optional[float] = ..., natr_14: _Optional[float] = ..., adx_14: _Optional[float] = ..., donchian_pos_20: _Optional[float] = ..., efficiency_ratio_10: _Optional[float] = ..., roc_10: _Optional[float] = ..., volume_z_20: _Optional[float] = ..., vwap_dev_20: _Optional[float] = ..., amihud_20: _Optional[float] = ..., autocorr1_50: _Optional[float] = ..., variance_ratio_5_50: _Optional[float] = ..., drawdown: _Optional[float] = ..., beta_60: _Optional[float] = ..., corr_60: _Optional[float] = ..., ret_1: _Optional[float] = ..., ret_20: _Optional[float] = ..., ewma_vol: _Optional[float] = ..., realized_vol_50: _Optional[float] = ..., momentum_20: _Optional[float] = ..., tick_vwap_dev_50: _Optional[float] = ..., trade_imbalance_50: _Optional[float] = ..., microprice_dev: _Optional[float] = ..., queue_imbalance: _Optional[float] = ..., spread_bp: _Optional[float] = ..., ofi_50: _Optional[float] = ..., size_z_50: _Optional[float] = ..., tick_intensity: _Optional[float] = ..., tod_sin: _Optional[float] = ..., tod_cos: _Optional[float] = ...) -> None: ...

class Regime(_message.Message):
    __slots__ = ("partition", "offset", "index", "symbol", "ts", "known_at", "vol", "trend", "efficiency_ratio", "vol_low", "vol_high", "vol_regime", "hmm", "hmm_p_low", "hmm_p_high", "hmm_entropy", "cusum", "cusum_alarm", "bocpd_p_recent", "bocpd_run", "bocpd_alarm")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    VOL_FIELD_NUMBER: _ClassVar[int]
    TREND_FIELD_NUMBER: _ClassVar[int]
    EFFICIENCY_RATIO_FIELD_NUMBER: _ClassVar[int]
    VOL_LOW_FIELD_NUMBER: _ClassVar[int]
    VOL_HIGH_FIELD_NUMBER: _ClassVar[int]
    VOL_REGIME_FIELD_NUMBER: _ClassVar[int]
    HMM_FIELD_NUMBER: _ClassVar[int]
    HMM_P_LOW_FIELD_NUMBER: _ClassVar[int]
    HMM_P_HIGH_FIELD_NUMBER: _ClassVar[int]
    HMM_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    CUSUM_FIELD_NUMBER: _ClassVar[int]
    CUSUM_ALARM_FIELD_NUMBER: _ClassVar[int]
    BOCPD_P_RECENT_FIELD_NUMBER: _ClassVar[int]
    BOCPD_RUN_FIELD_NUMBER: _ClassVar[int]
    BOCPD_ALARM_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    index: int
    symbol: str
    ts: int
    known_at: int
    vol: VolTag
    trend: TrendTag
    efficiency_ratio: float
    vol_low: float
    vol_high: float
    vol_regime: VolRegime
    hmm: VolTag
    hmm_p_low: float
    hmm_p_high: float
    hmm_entropy: float
    cusum: float
    cusum_alarm: CusumAlarm
    bocpd_p_recent: float
    bocpd_run: float
    bocpd_alarm: BocpdAlarm
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., index: _Optional[int] = ..., symbol: _Optional[str] = ..., ts: _Optional[int] = ..., known_at: _Optional[int] = ..., vol: _Optional[_Union[VolTag, str]] = ..., trend: _Optional[_Union[TrendTag, str]] = ..., efficiency_ratio: _Optional[float] = ..., vol_low: _Optional[float] = ..., vol_high: _Optional[float] = ..., vol_regime: _Optional[_Union[VolRegime, str]] = ..., hmm: _Optional[_Union[VolTag, str]] = ..., hmm_p_low: _Optional[float] = ..., hmm_p_high: _Optional[float] = ..., hmm_entropy: _Optional[float] = ..., cusum: _Optional[float] = ..., cusum_alarm: _Optional[_Union[CusumAlarm, str]] = ..., bocpd_p_recent: _Optional[float] = ..., bocpd_run: _Optional[float] = ..., bocpd_alarm: _Optional[_Union[BocpdAlarm, str]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("partition", "offset", "index", "symbol", "ts", "known_at", "horizon", "p_up", "p_momentum", "p_mean_reversion", "p_breakout", "p_last_sign", "p_online_logit", "p_base_rate", "w_momentum", "w_mean_reversion", "w_breakout", "w_last_sign", "w_online_logit", "w_base_rate", "sigma", "close", "p_gbdt", "w_gbdt", "shadow_p", "gbdt_regime")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    P_UP_FIELD_NUMBER: _ClassVar[int]
    P_MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    P_MEAN_REVERSION_FIELD_NUMBER: _ClassVar[int]
    P_BREAKOUT_FIELD_NUMBER: _ClassVar[int]
    P_LAST_SIGN_FIELD_NUMBER: _ClassVar[int]
    P_ONLINE_LOGIT_FIELD_NUMBER: _ClassVar[int]
    P_BASE_RATE_FIELD_NUMBER: _ClassVar[int]
    W_MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    W_MEAN_REVERSION_FIELD_NUMBER: _ClassVar[int]
    W_BREAKOUT_FIELD_NUMBER: _ClassVar[int]
    W_LAST_SIGN_FIELD_NUMBER: _ClassVar[int]
    W_ONLINE_LOGIT_FIELD_NUMBER: _ClassVar[int]
    W_BASE_RATE_FIELD_NUMBER: _ClassVar[int]
    SIGMA_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    P_GBDT_FIELD_NUMBER: _ClassVar[int]
    W_GBDT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_P_FIELD_NUMBER: _ClassVar[int]
    GBDT_REGIME_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    index: int
    symbol: str
    ts: int
    known_at: int
    horizon: int
    p_up: float
    p_momentum: float
    p_mean_reversion: float
    p_breakout: float
    p_last_sign: float
    p_online_logit: float
    p_base_rate: float
    w_momentum: float
    w_mean_reversion: float
    w_breakout: float
    w_last_sign: float
    w_online_logit: float
    w_base_rate: float
    sigma: float
    close: float
    p_gbdt: float
    w_gbdt: float
    shadow_p: float
    gbdt_regime: VolRegime
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., index: _Optional[int] = ..., symbol: _Optional[str] = ..., ts: _Optional[int] = ..., known_at: _Optional[int] = ..., horizon: _Optional[int] = ..., p_up: _Optional[float] = ..., p_momentum: _Optional[float] = ..., p_mean_reversion: _Optional[float] = ..., p_breakout: _Optional[float] = ..., p_last_sign: _Optional[float] = ..., p_online_logit: _Optional[float] = ..., p_base_rate: _Optional[float] = ..., w_momentum: _Optional[float] = ..., w_mean_reversion: _Optional[float] = ..., w_breakout: _Optional[float] = ..., w_last_sign: _Optional[float] = ..., w_online_logit: _Optional[float] = ..., w_base_rate: _Optional[float] = ..., sigma: _Optional[float] = ..., close: _Optional[float] = ..., p_gbdt: _Optional[float] = ..., w_gbdt: _Optional[float] = ..., shadow_p: _Optional[float] = ..., gbdt_regime: _Optional[_Union[VolRegime, str]] = ...) -> None: ...

class Signal(_message.Message):
    __slots__ = ("partition", "offset", "index", "symbol", "ts", "known_at", "action", "edge_bp", "confidence", "p_up", "price", "horizon")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    EDGE_BP_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    P_UP_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    index: int
    symbol: str
    ts: int
    known_at: int
    action: Action
    edge_bp: float
    confidence: float
    p_up: float
    price: float
    horizon: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., index: _Optional[int] = ..., symbol: _Optional[str] = ..., ts: _Optional[int] = ..., known_at: _Optional[int] = ..., action: _Optional[_Union[Action, str]] = ..., edge_bp: _Optional[float] = ..., confidence: _Optional[float] = ..., p_up: _Optional[float] = ..., price: _Optional[float] = ..., horizon: _Optional[int] = ...) -> None: ...

class Fill(_message.Message):
    __slots__ = ("partition", "offset", "index", "symbol", "ts", "known_at", "decided_ts", "side", "reason", "quantity", "price", "reference", "fee", "slippage", "pnl", "position", "cash")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    DECIDED_TS_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    FEE_FIELD_NUMBER: _ClassVar[int]
    SLIPPAGE_FIELD_NUMBER: _ClassVar[int]
    PNL_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    CASH_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    index: int
    symbol: str
    ts: int
    known_at: int
    decided_ts: int
    side: Side
    reason: FillReason
    quantity: float
    price: float
    reference: float
    fee: float
    slippage: float
    pnl: float
    position: float
    cash: float
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., index: _Optional[int] = ..., symbol: _Optional[str] = ..., ts: _Optional[int] = ..., known_at: _Optional[int] = ..., decided_ts: _Optional[int] = ..., side: _Optional[_Union[Side, str]] = ..., reason: _Optional[_Union[FillReason, str]] = ..., quantity: _Optional[float] = ..., price: _Optional[float] = ..., reference: _Optional[float] = ..., fee: _Optional[float] = ..., slippage: _Optional[float] = ..., pnl: _Optional[float] = ..., position: _Optional[float] = ..., cash: _Optional[float] = ...) -> None: ...

class Equity(_message.Message):
    __slots__ = ("partition", "offset", "index", "symbol", "ts", "known_at", "position", "mark", "cash", "equity", "pnl", "fees", "traded", "refused")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    CASH_FIELD_NUMBER: _ClassVar[int]
    EQUITY_FIELD_NUMBER: _ClassVar[int]
    PNL_FIELD_NUMBER: _ClassVar[int]
    FEES_FIELD_NUMBER: _ClassVar[int]
    TRADED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    index: int
    symbol: str
    ts: int
    known_at: int
    position: float
    mark: float
    cash: float
    equity: float
    pnl: float
    fees: float
    traded: float
    refused: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., index: _Optional[int] = ..., symbol: _Optional[str] = ..., ts: _Optional[int] = ..., known_at: _Optional[int] = ..., position: _Optional[float] = ..., mark: _Optional[float] = ..., cash: _Optional[float] = ..., equity: _Optional[float] = ..., pnl: _Optional[float] = ..., fees: _Optional[float] = ..., traded: _Optional[float] = ..., refused: _Optional[int] = ...) -> None: ...
