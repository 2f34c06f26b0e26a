"""Plays the stories: all at once, but the one that kills the worker strikes last."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from config.demo.screen import Screen
from config.demo.site import Site
from config.demo.tale import Story, Tale, Told, tell


def play(stories: Sequence[Story], site: Site, screen: Screen) -> list[Told]:
    """Tell every story and return how each ended, in the order of their letters."""
    others_done = threading.Event()
    tales = {story.letter: Tale(story.letter, story.title, site, screen, others_done) for story in stories}
    with ThreadPoolExecutor(max_workers=max(1, len(stories)), thread_name_prefix="story") as pool:
        running = {story.letter: pool.submit(tell, story, tales[story.letter]) for story in stories}
        for story in stories:
            if not story.kills:
                running[story.letter].result()
        others_done.set()
        return [running[story.letter].result() for story in stories]
