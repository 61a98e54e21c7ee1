"""The ways in: gateway, Flask extension, blueprint, stub."""
