"""The config file: text → `document` → `objects`, by the fields of `values`. `file` is the way in."""
