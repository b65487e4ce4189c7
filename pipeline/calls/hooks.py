"""Whether the webhooks that are set can be called at all."""

from pipeline.calls.places import place_of
from pipeline.errors import MisuseError
from pipeline.settings import Settings


def check_webhooks(settings: Settings) -> None:
    """Look at each address.

    Raises:
        MisuseError: one is none, or is not called; it names the webhook, not the address.
    """
    for name, hook in settings.webhooks.items():
        try:
            place_of(hook.url.get_secret_value(), plain=settings.calls.plain)
        except MisuseError as error:
            raise MisuseError(f"webhook {name}: {error}") from error
