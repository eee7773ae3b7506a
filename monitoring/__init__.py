"""What watches runs: Prometheus' configuration and rules, Grafana's provisioning and dashboards, and the code that makes the dashboards."""
