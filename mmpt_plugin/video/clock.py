"""Times in videos as text. No dependencies, so it is for tables and pages as well."""


def clock(seconds: float) -> str:
    """`1:05:07` or `5:07`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
