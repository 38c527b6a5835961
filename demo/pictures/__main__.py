"""`python3 -m demo.pictures`: draws the pictures of the README, the registry and the template browser again, with the demo's model."""

from ..environment import prepare

if __name__ == "__main__":
    raise SystemExit(prepare().run("-m", "circulation_demo.pictures"))
