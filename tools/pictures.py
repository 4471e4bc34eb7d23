"""matplotlib that draws to files, without a display: every text appears as it is, whatever the user's settings say."""
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402, F401  (the back end is chosen first)

matplotlib.rcParams.update({"text.parse_math": False, "text.usetex": False})
