def render(response):
    return repr(response) + "\n"
