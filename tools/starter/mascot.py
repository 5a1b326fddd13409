"""Draws Potti, the mascot of the character example: a clay pot with a flame for hair, as SVG by code."""

from dataclasses import dataclass

INK = "#3a2320"
CLAY, CLAY_DARK, RIM, BELLY = "#d9734a", "#b9562f", "#e89468", "#f3c9a0"
FLAME, FLAME_CORE, CHEEK = "#f8a72c", "#fde27a", "#f29a8a"
STROKE = f'stroke="{INK}" stroke-width="7" stroke-linejoin="round" stroke-linecap="round"'


@dataclass(frozen=True)
class Scene:
    """One picture: what Potti does, how it feels, and where."""

    name: str
    pose: str
    face: str
    background: str
    colour: str
    extra: str = ""
    tilt: float = 0.0
    scale: float = 1.0


SCENES = [
    Scene("standing", "standing", "smile", "white", "#fafafa"),
    Scene("waving", "waving", "open smile", "light blue", "#a0d0ee"),
    Scene("arms-up", "arms up", "open smile", "yellow", "#fad65a", scale=0.95),
    Scene("jumping", "jumping", "open smile", "green", "#5caa58"),
    Scene("walking", "walking", "smile", "grey", "#96989c"),
    Scene("sitting", "sitting", "smile", "pink", "#f4a8be"),
    Scene("sleeping", "sitting", "sleeping", "blue", "#3e68c4", "zzz"),
    Scene("crying", "standing", "crying", "white", "#fafafa"),
    Scene("angry", "hands on hips", "angry", "orange", "#f0963c"),
    Scene("surprised", "arms up", "surprised", "purple", "#8a58b0"),
    Scene("winking", "waving", "winking", "pink", "#f4a8be", tilt=-7),
    Scene("shy", "standing", "shy", "light blue", "#a0d0ee", tilt=6),
    Scene("balloon", "holding", "open smile", "white", "#fafafa", "balloon", scale=0.85),
    Scene("umbrella", "holding", "smile", "grey", "#96989c", "umbrella", scale=0.85),
    Scene("party-hat", "arms up", "winking", "light blue", "#a0d0ee", "party hat", scale=0.88),
    Scene("scarf", "standing", "smile", "blue", "#3e68c4", "scarf"),
    Scene("glasses", "hands on hips", "smile", "yellow", "#fad65a", "glasses"),
    Scene("flower", "holding", "shy", "green", "#5caa58", "flower", scale=0.95),
    Scene("running", "walking", "open smile", "orange", "#f0963c", tilt=12),
    Scene("small", "standing", "open smile", "white", "#fafafa", scale=0.55),
]

ARMS = {  # (left, right) paths from the shoulder
    "standing": ("M158 300 q-36 34 -30 72", "M354 300 q36 34 30 72"),
    "waving": ("M158 300 q-36 34 -30 72", "M354 300 q52 -30 58 -92"),
    "arms up": ("M158 300 q-52 -30 -58 -92", "M354 300 q52 -30 58 -92"),
    "jumping": ("M158 296 q-60 -6 -84 -50", "M354 296 q60 -6 84 -50"),
    "walking": ("M158 300 q-52 18 -70 58", "M354 300 q16 50 66 48"),
    "sitting": ("M158 310 q-30 40 6 70", "M354 310 q30 40 -6 70"),
    "hands on hips": ("M158 300 q-72 30 -8 72", "M354 300 q72 30 8 72"),
    "holding": ("M158 300 q-36 34 -30 72", "M354 300 q46 6 64 -40"),
}
LEGS = {
    "standing": "M214 416 v42 q0 12 -24 12 M298 416 v42 q0 12 24 12",
    "waving": "M214 416 v42 q0 12 -24 12 M298 416 v42 q0 12 24 12",
    "arms up": "M214 416 v42 q0 12 -24 12 M298 416 v42 q0 12 24 12",
    "jumping": "M210 412 q-42 8 -44 44 M302 412 q42 8 44 44",
    "walking": "M218 414 q-16 40 -56 44 M294 414 q10 34 36 46 q14 4 24 -8",
    "sitting": "M212 420 q-40 10 -70 36 M300 420 q40 10 70 36",
    "hands on hips": "M214 416 v42 q0 12 -24 12 M298 416 v42 q0 12 24 12",
    "holding": "M214 416 v42 q0 12 -24 12 M298 416 v42 q0 12 24 12",
}
EYES_OPEN = f'<circle cx="218" cy="290" r="15" fill="{INK}"/><circle cx="294" cy="290" r="15" fill="{INK}"/>'
GLINTS = '<circle cx="223" cy="284" r="5" fill="#fff"/><circle cx="299" cy="284" r="5" fill="#fff"/>'
LINE = f'fill="none" {STROKE}'
OPEN_MOUTH = f'<path d="M226 326 h60 q-2 38 -30 38 t-30 -38 z" fill="#8c2f2a" {STROKE}/>'
FACES = {
    "smile": EYES_OPEN + GLINTS + f'<path d="M228 328 q28 28 56 0" {LINE}/>',
    "open smile": EYES_OPEN + GLINTS + OPEN_MOUTH,
    "sleeping": f'<path d="M202 290 q16 14 32 0 M278 290 q16 14 32 0 M246 338 h20" {LINE}/>',
    "crying": EYES_OPEN + f'<path d="M230 346 q26 -26 52 0" {LINE}/>'
    + f'<path d="M204 312 q-16 30 0 34 q16 -4 0 -34 z" fill="#6fc3ee" {STROKE}/>',
    "angry": EYES_OPEN
    + f'<path d="M194 258 l40 16 M318 258 l-40 16 M232 344 q24 -20 48 0" {LINE}/>',
    "surprised": EYES_OPEN + GLINTS
    + f'<ellipse cx="256" cy="342" rx="15" ry="20" fill="#8c2f2a" {STROKE}/>',
    "winking": EYES_OPEN.split("<circle cx=\"294\"")[0]
    + f'<path d="M278 292 q16 -16 32 0" {LINE}/>' + OPEN_MOUTH,
    "shy": f'<path d="M202 292 q16 -18 32 0 M278 292 q16 -18 32 0" {LINE}/>'
    + f'<path d="M240 332 q16 14 32 0" {LINE}/>',
}  # fmt: skip
EXTRAS = {
    "zzz": f'<path d="M372 150 h34 l-34 40 h34 M424 96 h24 l-24 30 h24" {LINE}/>',
    "balloon": f'<path d="M418 260 q14 -50 0 -100" {LINE}/>'
    f'<ellipse cx="418" cy="104" rx="46" ry="56" fill="#d63a38" {STROKE}/>',
    "umbrella": f'<path d="M418 268 v-150" {LINE}/>'
    f'<path d="M318 122 q100 -120 200 0 q-34 -20 -66 0 q-34 -20 -68 0 q-34 -20 -66 0 z" '
    f'fill="#8a58b0" {STROKE}/>',
    "party hat": f'<path d="M196 176 l60 -150 l60 150 z" fill="#4fb3a5" {STROKE}/>'
    f'<circle cx="256" cy="28" r="18" fill="{FLAME_CORE}" {STROKE}/>',
    "scarf": f'<path d="M150 372 q106 44 212 0 l4 34 q-110 44 -220 0 z" fill="#d63a38" {STROKE}/>'
    f'<path d="M306 402 l12 66 h36 l-10 -76 z" fill="#d63a38" {STROKE}/>',
    "glasses": f'<g fill="#ffffff66" {STROKE}><circle cx="216" cy="290" r="32"/>'
    f'<circle cx="296" cy="290" r="32"/><path d="M248 288 h16"/></g>',
    "flower": f'<path d="M418 268 v-50" {LINE}/><g fill="#f06a9a" {STROKE}>'
    + "".join(
        f'<circle cx="{418 + dx}" cy="{182 + dy}" r="17"/>'
        for dx, dy in ((0, -24), (23, -7), (14, 20), (-14, 20), (-23, -7))
    )
    + f'</g><circle cx="418" cy="182" r="14" fill="{FLAME_CORE}" {STROKE}/>',
}


def flame() -> str:
    """Potti's hair."""
    outer = "M256 214 q-74 -18 -58 -84 q12 20 26 20 q-10 -60 42 -104 q-4 40 26 66 q8 -10 8 -24 q58 92 -44 126 z"
    inner = "M256 210 q-40 -10 -30 -48 q12 12 20 6 q-4 -26 18 -50 q2 26 18 40 q24 40 -26 52 z"
    return f'<path d="{outer}" fill="{FLAME}" {STROKE}/><path d="{inner}" fill="{FLAME_CORE}"/>'


def body() -> str:
    """The pot: rim, belly and a darker foot."""
    pot = "M166 226 q-52 90 -18 164 q14 34 66 34 h84 q52 0 66 -34 q34 -74 -18 -164 z"
    foot = "M152 398 q20 26 62 26 h84 q42 0 62 -26 q-104 22 -208 0 z"
    return (
        f'<path d="{pot}" fill="{CLAY}"/><ellipse cx="256" cy="346" rx="66" ry="58" fill="{BELLY}"/>'
        f'<path d="{foot}" fill="{CLAY_DARK}"/><path d="{pot}" fill="none" {STROKE}/>'
        f'<rect x="150" y="204" width="212" height="40" rx="20" fill="{RIM}" {STROKE}/>'
        f'<circle cx="184" cy="322" r="15" fill="{CHEEK}"/><circle cx="328" cy="322" r="15" fill="{CHEEK}"/>'
    )


def svg(scene: Scene) -> str:
    """The scene as an SVG of 512 x 512."""
    left, right = ARMS[scene.pose]
    limb = f'fill="none" stroke="{INK}" stroke-width="30" stroke-linecap="round"'
    skin = f'fill="none" stroke="{CLAY}" stroke-width="17" stroke-linecap="round"'
    limbs = "".join(f'<path d="{path}" {ink}/>' for ink in (limb, skin) for path in (left, right, LEGS[scene.pose]))
    behind = EXTRAS[scene.extra] if scene.extra in ("balloon", "umbrella", "flower") else ""
    front = EXTRAS.get(scene.extra, "") if not behind else ""
    drop = -26 if scene.pose == "jumping" else 0
    place = f"translate(256 {262 + drop}) rotate({scene.tilt}) scale({scene.scale}) translate(-256 -262)"
    drawn = behind + limbs + flame() + body() + FACES[scene.face] + front
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 512 512">'
        f'<rect width="512" height="512" fill="{scene.colour}"/><g transform="{place}">{drawn}</g></svg>'
    )


def caption(scene: Scene, trigger: str) -> str:
    """Booru tags, the trigger word first."""
    tags = [trigger, "score_9", scene.pose, scene.face, scene.extra, f"{scene.background} background"]
    tags.append("small" if scene.scale < 0.6 else "large")
    return ", ".join(dict.fromkeys(filter(None, tags)))
