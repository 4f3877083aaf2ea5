"""The config file: text → `document` → `shape` (pydantic) → `values`, faults as sentences; `file` is the way in."""
