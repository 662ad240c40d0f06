"""Which packages an installation has; everything else is in pyproject.toml.

``configs`` and ``papers`` are importable under these names, and would be in everybody's way in
site-packages: an installation has them in ``vision/_recipes``, which is put on the path's end when
a config or a run is read (``vision.config.config_files.recipes_importable``); the weights of
``zoo`` lie there too. An editable install takes them from the checkout.
"""

from setuptools import find_namespace_packages, setup

RECIPES = ("configs", "papers", "zoo")

library = find_namespace_packages(include=["vision", "vision.*"])
recipes = [
    package
    for name in RECIPES
    for package in find_namespace_packages(include=[name, f"{name}.*"])
    if "__pycache__" not in package
]
setup(
    packages=[each for each in library if "__pycache__" not in each]
    + [f"vision._recipes.{package}" for package in recipes],
    package_dir={f"vision._recipes.{name}": name for name in RECIPES},
)
