"""A program that is a stub and a script: run by itself, it has a worker double a point of its own."""

from wsgi_timeout import Stub

stub = Stub()


class Point:
    def __init__(self, x):
        self.x = x


@stub.function()
def double(point):
    return Point(point.x * 2)


if __name__ == "__main__":
    print(stub.name, double.spawn(Point(21)).get(timeout=30).x)  # noqa: T201 - what it is for
