"""vae-ops in Airflow: operators, a task group, trigger-form parameters and the asset event.

`task_group.VaeAugmentation` is the usual way in; `operators` holds its five tasks one by one. Everything that learns,
draws or judges lives in the `vae_ops` engine and runs in a process of its own (`process.py`); nothing here imports
TensorFlow, Keras or pandas.
"""
