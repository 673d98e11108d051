from tests.results.conftest import make_result, make_spec  # noqa: F401
