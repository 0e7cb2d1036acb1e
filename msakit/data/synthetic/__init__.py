"""Generators of the mini corpora: each module's docstring is the generating model, and `README.md` in what it writes.

    mini_mosi        monologues with transcript, word times, sound and a drawn face (model: `mosi_model`)
    mini_posts       a post and a picture, three classes (pictures: `scenes`)
    mini_memes       two classes, the exclusive or of text and picture
    mini_pool_mosi   unlabelled speech, faces and transcripts, for pre-training
    mini_pool_posts  unlabelled pictures with captions, and texts, for pre-training

The pools are disjoint from the labelled corpora in speakers, sounds and pictures. Short texts are drawn from few
templates and words, so some of them recur by chance; `corpus.json` of a pool says how many.
"""
