"""The plugin's pages in Airflow's UI: augmented tables and their trends, the report of a run, the record of a task.

`app.py` serves them, `access.py` says to whom, `records.py` reads what our tasks returned, `reports.py` opens the
report that a record names, `trends.py` draws scores over runs, `templates/` lay out. Only the api-server imports these
modules, through `plugin.py`; the workers' part, the buttons that lead here, is `vae_ops_provider/links.py`.
"""
