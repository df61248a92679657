"""The floor: ids, events, records, errors, ports, configuration and logs."""
