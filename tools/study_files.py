"""Files of a study that outlive a command: written completely or not at all, read strictly; and the lock of submit."""
import contextlib
import fcntl
import json
import os

from study_points import StudyError


def write_whole(path, text):
    """Writes a new file, syncs it and renames it, so that a full disk or a kill leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StudyError(f"cannot write {path} ({error.strerror}; what was there is kept); free space or check its permissions") from None


def write_json(path, value):
    write_whole(path, json.dumps(value, indent=1))


def read_json(path):
    """A dictionary; empty only where the file does not exist."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StudyError(f"cannot read {path} ({error.strerror}); check the path and its permissions") from None
    except ValueError as error:
        raise StudyError(f"{path} is damaged ({error}); restore it, or remove it once no job of this study is queued or running") from None
    if not isinstance(value, dict):
        raise StudyError(f"{path} is damaged (not a JSON object); restore it, or remove it once no job of this study is queued or running")
    return value


@contextlib.contextmanager
def only_submit(study):
    """The study's lock as a descriptor. Processes that run a point inherit it, so a point left running keeps it locked."""
    study.dir.mkdir(parents=True, exist_ok=True)
    path = study.dir / "submit.lock"
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"another submit of this study is at work, or a point that it started (it holds {path}); "
                             "wait for its end; nothing was touched") from None
        yield file.fileno()
