"""The study of several models: does what one model shows show again, and is this knob better than those that there are?

`plan` says what is asked, `knobs` how each row is sampled, `sampling` makes images and measures them, `analysis` puts the models together.
"""
