"""The vision-language core: prompt tuning with neural collapse, usable without the service."""
