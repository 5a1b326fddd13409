"""How often each concept is shown: what everyone can name and draw comes first."""

from .catalogue import Emoji

CORE = frozenset(
    name.strip()
    for name in """
grinning face, slightly smiling face, winking face, smiling face with halo, smiling face with hearts,
smiling face with heart-eyes, face with tongue, cowboy hat face, smiling face with sunglasses,
nerd face, angry face, smiling face with horns, skull, clown face, alien, alien monster, robot,
pile of poo, neutral face, crying face, loudly crying face, frowning face, face with open mouth,
face with medical mask, grinning cat, face with tears of joy, smiling face with smiling eyes,
red heart, orange heart, yellow heart, green heart, blue heart, purple heart, black heart,
broken heart, two hearts, heart with arrow, baby, boy, girl, man, woman, old man, old woman,
santa claus, superhero, zombie, vampire, astronaut, firefighter, police officer, cook, farmer,
monkey face, monkey, dog face, dog, poodle, wolf, fox, raccoon, cat face, cat, black cat,
tiger face, leopard, horse face, horse, unicorn, zebra, deer, cow face, cow, pig face, pig, ewe,
camel, giraffe, elephant, rhinoceros, hippopotamus, mouse face, mouse, hamster, rabbit face,
rabbit, hedgehog, bat, bear, polar bear, koala, panda, chicken, rooster, hatching chick,
baby chick, bird, penguin, eagle, duck, swan, owl, flamingo, parrot, frog, crocodile, turtle,
snake, dragon face, t-rex, spouting whale, whale, dolphin, fish, tropical fish, blowfish, shark,
octopus, jellyfish, crab, lobster, snail, butterfly, lady beetle, spider, ant, cherry blossom,
sunflower, tulip, blossom, potted plant, evergreen tree, deciduous tree, palm tree, cactus,
four leaf clover, maple leaf, mushroom, grapes, watermelon, tangerine, lemon, banana, pineapple,
red apple, green apple, pear, peach, cherries, strawberry, blueberries, kiwi fruit, tomato,
avocado, potato, carrot, ear of corn, hot pepper, cucumber, onion, bread, croissant, pretzel,
pancakes, cheese wedge, hamburger, french fries, pizza, sandwich, taco, egg, popcorn, ice cream,
soft ice cream, doughnut, cookie, birthday cake, cupcake, chocolate bar, candy, lollipop,
hot beverage, teapot, wine glass, cocktail glass, tropical drink, beer mug, house, castle,
office building, hospital, statue of liberty, locomotive, train, tram, bus, ambulance,
fire engine, police car, automobile, delivery truck, tractor, racing car, motorcycle, bicycle,
stop sign, anchor, sailboat, ship, airplane, parachute, helicopter, rocket, flying saucer,
full moon, crescent moon, sun, sun with face, ringed planet, star, cloud, cloud with rain,
sun behind cloud, rainbow, umbrella, high voltage, snowflake, snowman, fire, droplet,
soccer ball, baseball, basketball, volleyball, american football, tennis, balloon,
christmas tree, jack-o-lantern, wrapped gift, trophy, bullseye, teddy bear, game die, kite,
sunglasses, necktie, t-shirt, jeans, dress, socks, running shoe, high-heeled shoe, crown,
top hat, graduation cap, ring, gem stone, guitar, trumpet, violin, drum, alarm clock, watch,
light bulb, candle, camera, television, laptop, mobile phone, open book, books, hammer,
pencil, bomb, bell, volcano, tent, eyes, brain, bone, tooth, money bag, hourglass done
""".replace("\n", " ").split(",")
)
# Subgroups whose names most people know.
FAMILIAR = {
    "animal-mammal", "animal-bird", "animal-marine", "animal-reptile", "animal-amphibian",
    "animal-bug", "plant-flower", "plant-other", "food-fruit", "food-vegetable", "food-prepared",
    "food-sweet", "drink", "transport-ground", "transport-air", "transport-water", "face-smiling",
    "face-affection", "face-tongue", "face-hat", "face-glasses", "face-negative", "face-costume",
    "cat-face", "heart", "person", "person-fantasy", "place-building", "sport", "sky-weather",
    "musical-instrument", "clothing",
}  # fmt: skip


def weight(emoji: Emoji) -> int:
    """How often a concept is drawn for a batch, against the rarest."""
    if emoji.name in CORE:
        return 20
    return 4 if emoji.subgroup in FAMILIAR else 1
