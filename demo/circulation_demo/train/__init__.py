"""How the model in the box was made: `render` draws the avatars, `train` trains on them."""
