"""The units of {{convert}} that articles use most: names, symbols, sizes, and what each is converted to by default.

Sizes are in the base unit of their kind (metre, square metre, cubic metre, kilogram, metre a second, ...), after the
international yard and pound agreement of 1959, and NIST SP 811 for the rest.
"""

from collections.abc import Callable
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit; default: the code it is converted to, or a function of the value. offset: of the zero of a temperature."""

    kind: str
    scale: float
    symbol: str
    singular: str
    plural: str
    default: str | Callable[[float], str]
    offset: float = 0.0


_FOOT, _MILE, _YARD, _POUND, _ACRE = 0.3048, 1609.344, 0.9144, 0.45359237, 4046.8564224
_US_GALLON, _IMPERIAL_GALLON, _BARREL = 0.003785411784, 0.00454609, 0.158987294928


def _by_value(limit: float, below: str, above: str) -> Callable[[float], str]:
    return lambda value: below if value < limit else above


def _table(kind: str, rows: str, sizes: dict[str, tuple]) -> dict[str, Unit]:
    """One line a unit: code, symbol, singular, plural (s is added where it is missing)."""
    units = {}
    for row in rows.strip().splitlines():
        code, symbol, singular, plural = (row.strip().split("; ") + [""])[:4]
        scale, default, *offset = sizes[code]
        units[code] = Unit(kind, scale, symbol, singular, plural or f"{singular}s", default, *offset)
    return units


UNITS: dict[str, Unit] = {
    **_table(
        "length",
        """
        m; m; metre
        km; km; kilometre
        cm; cm; centimetre
        mm; mm; millimetre
        um; μm; micrometre
        nm; nm; nanometre
        ft; ft; foot; feet
        in; in; inch; inches
        yd; yd; yard
        mi; mi; mile
        nmi; nmi; nautical mile
        fathom; fathoms; fathom
        furlong; furlongs; furlong
        chain; chains; chain
        hand; hands; hand
        ly; ly; light-year
        AU; au; astronomical unit
        pc; pc; parsec
        """,
        {
            "m": (1.0, _by_value(3, "ftin", "ft")), "km": (1e3, "mi"), "cm": (0.01, "in"), "mm": (1e-3, "in"), "um": (1e-6, "in"),
            "nm": (1e-9, "in"), "ft": (_FOOT, "m"), "in": (0.0254, "mm"), "yd": (_YARD, "m"), "mi": (_MILE, "km"),
            "nmi": (1852.0, "km mi"), "fathom": (2 * _YARD, "ft m"), "furlong": (220 * _YARD, "mi km"),
            "chain": (22 * _YARD, "ft m"), "hand": (4 * 0.0254, "in cm"), "ly": (9.4607304725808e15, "AU"),
            "AU": (149597870700.0, "km mi"), "pc": (3.0856775814913673e16, "ly"),
        },
    ),
    **_table(
        "area",
        """
        m2; m2; square metre
        km2; km2; square kilometre
        cm2; cm2; square centimetre
        mm2; mm2; square millimetre
        ha; ha; hectare
        acre; acres; acre
        sqmi; sq mi; square mile
        sqft; sq ft; square foot; square feet
        sqin; sq in; square inch; square inches
        sqyd; sq yd; square yard
        dunam; dunams; dunam
        """,
        {
            "m2": (1.0, "sqft"), "km2": (1e6, "sqmi"), "cm2": (1e-4, "sqin"), "mm2": (1e-6, "sqin"), "ha": (1e4, "acre"),
            "acre": (_ACRE, "ha"), "sqmi": (_MILE**2, "km2"), "sqft": (_FOOT**2, "m2"), "sqin": (0.0254**2, "cm2"),
            "sqyd": (_YARD**2, "m2"), "dunam": (1e3, "ha acre"),
        },
    ),
    **_table(
        "volume",
        """
        m3; m3; cubic metre
        km3; km3; cubic kilometre
        cm3; cm3; cubic centimetre
        L; L; litre
        ml; ml; millilitre
        cl; cl; centilitre
        cuft; cu ft; cubic foot; cubic feet
        cuin; cu in; cubic inch; cubic inches
        cuyd; cu yd; cubic yard
        cumi; cu mi; cubic mile
        usgal; US gal; US gallon
        impgal; imp gal; imperial gallon
        U.S.floz; US fl oz; US fluid ounce
        impfloz; imp fl oz; imperial fluid ounce
        oilbbl; bbl; barrel
        koilbbl; kbbl; thousand barrels; thousand barrels
        Moilbbl; MMbbl; million barrels; million barrels
        Goilbbl; Gbbl; billion barrels; billion barrels
        acre.ft; acre⋅ft; acre-foot; acre-feet
        usqt; US qt; US quart
        """,
        {
            "m3": (1.0, "cuft"), "km3": (1e9, "cumi"), "cm3": (1e-6, "cuin"), "L": (1e-3, "impgal usgal"),
            "ml": (1e-6, "impfloz U.S.floz"), "cl": (1e-5, "impfloz U.S.floz"), "cuft": (_FOOT**3, "m3"),
            "cuin": (0.0254**3, "cm3"), "cuyd": (_YARD**3, "m3"), "cumi": (_MILE**3, "km3"), "usgal": (_US_GALLON, "L impgal"),
            "impgal": (_IMPERIAL_GALLON, "L usgal"), "U.S.floz": (_US_GALLON / 128, "ml"), "impfloz": (_IMPERIAL_GALLON / 160, "ml"),
            "oilbbl": (_BARREL, "m3"), "koilbbl": (1e3 * _BARREL, "m3"),
            "Moilbbl": (1e6 * _BARREL, "m3"), "Goilbbl": (1e9 * _BARREL, "m3"),
            "acre.ft": (_ACRE * _FOOT, "m3"), "usqt": (_US_GALLON / 4, "L"),
        },
    ),
    **_table(
        "mass",
        """
        kg; kg; kilogram
        g; g; gram
        mg; mg; milligram
        t; t; tonne
        lb; lb; pound
        oz; oz; ounce
        ozt; ozt; troy ounce
        st; st; stone; stone
        LT; long tons; long ton
        ST; short tons; short ton
        carat; carats; carat
        gr; gr; grain
        """,
        {
            "kg": (1.0, "lb"), "g": (1e-3, "oz"), "mg": (1e-6, "gr"), "t": (1e3, "LT ST"), "lb": (_POUND, "kg"),
            "oz": (_POUND / 16, "g"), "ozt": (0.0311034768, "oz g"), "st": (14 * _POUND, "kg"), "LT": (2240 * _POUND, "t"),
            "ST": (2000 * _POUND, "t"), "carat": (2e-4, "g"), "gr": (6.479891e-5, "g"),
        },
    ),
    **_table(
        "speed",
        """
        km/h; km/h; kilometre per hour; kilometres per hour
        mph; mph; mile per hour; miles per hour
        m/s; m/s; metre per second; metres per second
        km/s; km/s; kilometre per second; kilometres per second
        ft/s; ft/s; foot per second; feet per second
        mi/s; mi/s; mile per second; miles per second
        kn; kn; knot
        """,
        {
            "km/h": (1 / 3.6, "mph"), "mph": (_MILE / 3600, "km/h"), "m/s": (1.0, "ft/s"), "km/s": (1e3, "mi/s"),
            "ft/s": (_FOOT, "m/s"), "mi/s": (_MILE, "km/s"), "kn": (1852 / 3600, "km/h mph"),
        },
    ),
    **_table(
        "temperature",
        """
        C; °C; degree Celsius; degrees Celsius
        F; °F; degree Fahrenheit; degrees Fahrenheit
        K; K; kelvin; kelvins
        """,
        {"C": (1.0, "F", -273.15), "F": (5 / 9, "C", -459.67), "K": (1.0, "C F")},
    ),
    **_table(
        "temperature difference",
        """
        C-change; °C; degree Celsius; degrees Celsius
        F-change; °F; degree Fahrenheit; degrees Fahrenheit
        """,
        {"C-change": (1.0, "F-change"), "F-change": (5 / 9, "C-change")},
    ),
    **_table(
        "density of people",
        """
        PD/km2; /km2; inhabitant per square kilometre; inhabitants per square kilometre
        PD/sqmi; /sq mi; inhabitant per square mile; inhabitants per square mile
        PD/ha; /ha; inhabitant per hectare; inhabitants per hectare
        PD/acre; /acre; inhabitant per acre; inhabitants per acre
        """,
        {
            "PD/km2": (1e-6, "PD/sqmi"), "PD/sqmi": (1 / _MILE**2, "PD/km2"), "PD/ha": (1e-4, "PD/acre"),
            "PD/acre": (1 / _ACRE, "PD/ha"),
        },
    ),
    **_table(
        "flow",
        """
        m3/s; m3/s; cubic metre per second; cubic metres per second
        cuft/s; cu ft/s; cubic foot per second; cubic feet per second
        oilbbl/d; bbl/d; barrel per day; barrels per day
        koilbbl/d; kbbl/d; thousand barrels per day; thousand barrels per day
        Moilbbl/d; Mbbl/d; million barrels per day; million barrels per day
        m3/d; m3/d; cubic metre per day; cubic metres per day
        """,
        {
            "m3/s": (1.0, "cuft/s"), "cuft/s": (_FOOT**3, "m3/s"), "oilbbl/d": (_BARREL / 86400, "m3/d"),
            "koilbbl/d": (1e3 * _BARREL / 86400, "m3/d"), "Moilbbl/d": (1e6 * _BARREL / 86400, "m3/d"),
            "m3/d": (1 / 86400, "cuft/d"),
        },
    ),
    **_table(
        "density",
        """
        kg/m3; kg/m3; kilogram per cubic metre; kilograms per cubic metre
        g/cm3; g/cm3; gram per cubic centimetre; grams per cubic centimetre
        lb/cuft; lb/cu ft; pound per cubic foot; pounds per cubic foot
        lb/cuin; lb/cu in; pound per cubic inch; pounds per cubic inch
        """,
        {
            "kg/m3": (1.0, "lb/cuyd"), "g/cm3": (1e3, "lb/cuin"), "lb/cuft": (_POUND / _FOOT**3, "kg/m3"),
            "lb/cuin": (_POUND / 0.0254**3, "g/cm3"),
        },
    ),
    **_table(
        "power",
        """
        kW; kW; kilowatt
        MW; MW; megawatt
        W; W; watt
        hp; hp; horsepower; horsepower
        shp; shp; shaft horsepower; shaft horsepower
        bhp; bhp; brake horsepower; brake horsepower
        PS; PS; metric horsepower; metric horsepower
        """,
        {
            "kW": (1e3, "hp"), "MW": (1e6, "hp"), "W": (1.0, "hp"), "hp": (745.69987158227, "kW"), "shp": (745.69987158227, "kW"),
            "bhp": (745.69987158227, "kW"), "PS": (735.49875, "kW"),
        },
    ),
    **_table(
        "pressure",
        """
        kPa; kPa; kilopascal
        MPa; MPa; megapascal
        hPa; hPa; hectopascal
        mbar; mbar; millibar
        bar; bar; bar
        psi; psi; pound per square inch; pounds per square inch
        atm; atm; standard atmosphere
        inHg; inHg; inch of mercury; inches of mercury
        """,
        {
            "kPa": (1e3, "psi"), "MPa": (1e6, "psi"), "hPa": (100.0, "inHg"), "mbar": (100.0, "hPa"), "bar": (1e5, "kPa"),
            "psi": (6894.757293168361, "kPa"), "atm": (101325.0, "kPa"), "inHg": (3386.388640341, "kPa"),
        },
    ),
    **_table(
        "energy and torque",
        """
        Nm; N⋅m; newton-metre
        lb.ft; lb⋅ft; pound-foot; pound-feet
        kJ; kJ; kilojoule
        J; J; joule
        kcal; kcal; kilocalorie
        kWh; kWh; kilowatt-hour
        MJ; MJ; megajoule
        """,
        {
            "Nm": (1.0, "lb.ft"), "lb.ft": (1.3558179483314004, "Nm"), "kJ": (1e3, "kcal"), "J": (1.0, "cal"),
            "kcal": (4184.0, "kJ"), "kWh": (3.6e6, "MJ"), "MJ": (1e6, "kWh"),
        },
    ),
    **_table(
        "force",
        """
        N; N; newton
        kN; kN; kilonewton
        lbf; lbf; pound-force; pounds-force
        """,
        {"N": (1.0, "lbf"), "kN": (1e3, "lbf"), "lbf": (4.4482216152605, "N")},
    ),
}  # fmt: skip

ALIASES = {
    "metre": "m", "meter": "m", "metres": "m", "meters": "m", "kilometre": "km", "kilometer": "km", "kilometres": "km",
    "foot": "ft", "feet": "ft", "inch": "in", "inches": "in", "yard": "yd", "yards": "yd", "mile": "mi", "miles": "mi",
    "NM": "nmi", "nautical mile": "nmi", "μm": "um", "µm": "um", "fathoms": "fathom", "hands": "hand", "au": "AU",
    "acres": "acre", "hectare": "ha", "hectares": "ha", "sq mi": "sqmi", "mi2": "sqmi", "sq ft": "sqft", "ft2": "sqft",
    "sqkm": "km2", "in2": "sqin", "sqm": "m2", "sq yd": "sqyd", "yd2": "sqyd", "square mile": "sqmi",
    "square kilometre": "km2", "cu ft": "cuft", "ft3": "cuft", "in3": "cuin", "cu in": "cuin", "cu yd": "cuyd",
    "yd3": "cuyd", "cc": "cm3", "l": "L", "litre": "L", "liter": "L", "litres": "L", "mL": "ml", "USgal": "usgal",
    "U.S.gal": "usgal", "US gal": "usgal", "U.S. gal": "usgal", "imp gal": "impgal", "USfloz": "U.S.floz",
    "usfloz": "U.S.floz", "US fl oz": "U.S.floz", "imp fl oz": "impfloz", "floz": "U.S.floz", "bbl": "oilbbl",
    "USqt": "usqt", "acre.foot": "acre.ft", "acre·ft": "acre.ft", "acre-ft": "acre.ft", "kilogram": "kg", "kilograms": "kg",
    "gram": "g", "lbs": "lb", "pound": "lb", "pounds": "lb", "ounce": "oz", "tonne": "t", "tonnes": "t", "MT": "t",
    "stone": "st", "long ton": "LT", "lt": "LT", "short ton": "ST", "shortton": "ST", "carats": "carat", "kph": "km/h",
    "kmh": "km/h", "mi/h": "mph", "MPH": "mph", "knot": "kn", "knots": "kn", "fps": "ft/s", "°C": "C", "°F": "F",
    "degC": "C", "degF": "F", "celsius": "C", "fahrenheit": "F", "C°": "C-change", "F°": "F-change", "°C-change": "C-change",
    "°F-change": "F-change", "/km2": "PD/km2", "/sqmi": "PD/sqmi", "pd/km2": "PD/km2", "PD/sqkm": "PD/km2", "/ha": "PD/ha",
    "cumec": "m3/s", "ft3/s": "cuft/s", "cu ft/s": "cuft/s", "cuft/sec": "cuft/s", "bbl/d": "oilbbl/d", "mb": "mbar",
    "lbft": "lb.ft", "ftlb": "lb.ft", "ft.lbf": "lb.ft", "lbf.ft": "lb.ft", "N.m": "Nm", "N·m": "Nm", "PSI": "psi",
}  # fmt: skip
# Converted to two units at once: 5 ft 11 in.
COMPOSED = {
    "ftin": ("ft", "in"),
    "ft in": ("ft", "in"),
    "stlb": ("st", "lb"),
    "st lb": ("st", "lb"),
    "lboz": ("lb", "oz"),
    "ydft": ("yd", "ft"),
}
