#!/usr/bin/env python3
"""Makes world.json, the outlines of the world map: countries by their ISO 3166-1 alpha-2 codes, as small as can be.

    python3 files/dashboards/world.py

The outlines are Natural Earth's (public domain), as the npm package world-atlas carries them in two scales. Shapes are
taken from the coarse one and laid on a grid of a fifth of a degree, less than a pixel of a panel. Countries too small
to have a shape there become points.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "world-atlas@2.0.2"
STEP = 0.2

#: ISO 3166-1: numeric and alpha-2.
CODES = """
004AF 008AL 010AQ 012DZ 016AS 020AD 024AO 028AG 031AZ 032AR 036AU 040AT 044BS 048BH 050BD 051AM
052BB 056BE 060BM 064BT 068BO 070BA 072BW 074BV 076BR 084BZ 086IO 090SB 092VG 096BN 100BG 104MM
108BI 112BY 116KH 120CM 124CA 132CV 136KY 140CF 144LK 148TD 152CL 156CN 158TW 162CX 166CC 170CO
174KM 175YT 178CG 180CD 184CK 188CR 191HR 192CU 196CY 203CZ 204BJ 208DK 212DM 214DO 218EC 222SV
226GQ 231ET 232ER 233EE 234FO 238FK 239GS 242FJ 246FI 248AX 250FR 254GF 258PF 260TF 262DJ 266GA
268GE 270GM 275PS 276DE 288GH 292GI 296KI 300GR 304GL 308GD 312GP 316GU 320GT 324GN 328GY 332HT
334HM 336VA 340HN 344HK 348HU 352IS 356IN 360ID 364IR 368IQ 372IE 376IL 380IT 384CI 388JM 392JP
398KZ 400JO 404KE 408KP 410KR 414KW 417KG 418LA 422LB 426LS 428LV 430LR 434LY 438LI 440LT 442LU
446MO 450MG 454MW 458MY 462MV 466ML 470MT 474MQ 478MR 480MU 484MX 492MC 496MN 498MD 499ME 500MS
504MA 508MZ 512OM 516NA 520NR 524NP 528NL 531CW 533AW 534SX 535BQ 540NC 548VU 554NZ 558NI 562NE
566NG 570NU 574NF 578NO 580MP 581UM 583FM 584MH 585PW 586PK 591PA 598PG 600PY 604PE 608PH 612PN
616PL 620PT 624GW 626TL 630PR 634QA 638RE 642RO 643RU 646RW 652BL 654SH 659KN 660AI 662LC 663MF
666PM 670VC 674SM 678ST 682SA 686SN 688RS 690SC 694SL 702SG 703SK 704VN 705SI 706SO 710ZA 716ZW
724ES 728SS 729SD 732EH 740SR 744SJ 748SZ 752SE 756CH 760SY 762TJ 764TH 768TG 772TK 776TO 780TT
784AE 788TN 792TR 795TM 796TC 798TV 800UG 804UA 807MK 818EG 826GB 831GG 832JE 833IM 834TZ 840US
850VI 854BF 858UY 860UZ 862VE 876WF 882WS 887YE 894ZM
"""
#: Drawn by Natural Earth without a number: GeoLite2 has a code for the first, none for the others.
UNNUMBERED = {"Kosovo": "XK"}
#: Drawn as a part of another country, or not at all: latitude and longitude.
POINTS = {
    "BQ": (12.2, -68.3), "CC": (-12.1, 96.9), "CX": (-10.5, 105.7), "GF": (4, -53), "GI": (36.1, -5.4),
    "GP": (16.2, -61.5), "MQ": (14.6, -61), "RE": (-21.1, 55.5), "SJ": (78.8, 16), "TK": (-9.2, -171.8),
    "TV": (-8.5, 179.2), "YT": (-12.8, 45.2),
}  # fmt: skip
LEFT_OUT = {"AQ"}


def load(folder: Path, scale: str) -> dict:
    """Return one topology of the package."""
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        return json.load(package.extractfile(f"package/countries-{scale}.json"))


def code(geometry: dict) -> str | None:
    """Return the alpha-2 code of a country."""
    table = {pair[:3]: pair[3:] for pair in CODES.split()}
    return table.get(geometry.get("id", ""), UNNUMBERED.get(geometry["properties"]["name"]))


def degrees(topology: dict) -> list[list[tuple[float, float]]]:
    """Return the topology's arcs in degrees; they are stored as differences of whole numbers."""
    (kx, ky), (tx, ty) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            points.append((x * kx + tx, y * ky + ty))
        arcs.append(points)
    return arcs


def rings(geometry: dict) -> list[list[int]]:
    """Return the numbers of the arcs of each outer ring; ~n is arc n backwards."""
    polygons = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry["arcs"]
    return [polygon[0] for polygon in polygons]


def middle(geometry: dict, arcs: list) -> tuple[float, float]:
    """Return the middle of a country's largest island."""
    islands = [
        [point for number in ring for point in arcs[number if number >= 0 else ~number]]
        for ring in rings(geometry)
    ]
    largest = max(islands, key=len)
    xs, ys = zip(*largest, strict=True)
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def grid(point: tuple[float, float]) -> tuple[int, int]:
    """Return a point's place on the grid."""
    return round((point[0] + 180) / STEP), round((point[1] + 90) / STEP)


def packed(points: list[tuple[float, float]]) -> list[list[int]]:
    """Return an arc on the grid: its first point, then differences, without those that vanish."""
    on_grid = [grid(point) for point in points]
    kept = [on_grid[0], *(b for a, b in itertools.pairwise(on_grid) if a != b)]
    if len(kept) == 1:
        kept *= 2
    steps = [[bx - ax, by - ay] for (ax, ay), (bx, by) in itertools.pairwise(kept)]
    return [list(kept[0]), *steps]


def world(coarse: dict, fine: dict) -> dict:
    """Return the small topology."""
    shapes = [
        {key: value for key, value in {"type": g["type"], "id": code(g), "arcs": g["arcs"]}.items() if value}
        for g in coarse["objects"]["countries"]["geometries"]
        if code(g) not in LEFT_OUT
    ]
    drawn = {shape.get("id") for shape in shapes} | LEFT_OUT
    arcs = degrees(fine)
    small = {
        code(g): middle(g, arcs) for g in fine["objects"]["countries"]["geometries"] if code(g) not in drawn
    }
    small |= {name: (longitude, latitude) for name, (latitude, longitude) in POINTS.items()}
    points = [
        {"type": "Point", "id": name, "coordinates": grid(point)} for name, point in small.items() if name
    ]
    return {
        "type": "Topology",
        "transform": {"scale": [STEP, STEP], "translate": [-180, -90]},
        "objects": {"countries": {"type": "GeometryCollection", "geometries": shapes + points}},
        "arcs": [packed(arc) for arc in degrees(coarse)],
    }


def main() -> None:
    """Fetch the package and write world.json."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        topology = world(load(Path(folder), "110m"), load(Path(folder), "50m"))
    target = Path(__file__).with_name("world.json")
    target.write_text(json.dumps(topology, separators=(",", ":")) + "\n")
    print(
        f"{target}: {len(topology['objects']['countries']['geometries'])} countries, {target.stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
