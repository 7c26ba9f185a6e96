"""The section `[vae_ops]` of Airflow's configuration: what a deployment wants for all our tasks that do not say else.

`get_provider_info.py` shows the section to Airflow, `operators.py` asks for its values. A task's own arguments win.
"""

from typing import Any

__all__ = ["SECTION", "configured", "describe_section"]

SECTION = "vae_ops"

_OPTIONS = {
    "python": (
        "Interpreter that runs the steps: one with vae-ops and, for training, TensorFlow. Airflow's own by default.",
        "/opt/vae-ops/bin/python",
    ),
    "memory_limit": ("Resident memory that the processes of one step may hold. No limit by default.", "4GiB"),
    "cpu_limit": ("Processor cores that one step may use. All of the worker's by default.", "2"),
}


def configured(value: Any, option: str) -> Any:
    """The value of a task's argument or, where none was given or rendered, the deployment's; None where there is none.

    Args:
        value: The argument.
        option: Name of the argument, and of its option.
    """
    # Airflow asks for the description before it has read its configuration.
    from vae_ops_provider.compatibility import conf

    if value is not None and str(value).strip() not in ("", "None", "null"):
        return value
    return conf.get(SECTION, option, fallback=None) or None


def describe_section() -> dict[str, Any]:
    """The section as provider metadata describes one."""
    options = {name: _option(text, example) for name, (text, example) in _OPTIONS.items()}
    return {SECTION: {"description": "What the tasks of vae-ops do unless they say else.", "options": options}}


def _option(description: str, example: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": "string",
        "example": example,
        "default": None,
    }
