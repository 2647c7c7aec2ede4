from tests.probes.conftest import planted, trained, twin

__all__ = ["planted", "trained", "twin"]
