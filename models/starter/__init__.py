"""The backbone that ships with the project, and the script that built it.

The folder itself is an open_clip ``local-dir:`` model: plain
``open_clip.create_model_from_pretrained("local-dir:models/starter")`` loads it and needs none of
the modules here. They rebuild it (``python -m models.starter.build``) and need the extra
``starter``.
"""
