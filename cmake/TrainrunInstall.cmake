# Nothing yet is installed but what targets install themselves.
