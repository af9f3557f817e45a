"""Fuzz the decoder with mutated streams: each must be decoded, or rejected with a BitstreamError, within ten seconds.

Half of the mutations get a valid checksum again, as a hostile sender would provide. Streams are decoded to latents
only, without the networks of decoder and tail. Any other outcome (another exception, a crash, a hang) ends the program
with an error.
"""

import argparse
import faulthandler
import random
import time
import zlib
from collections import Counter
from pathlib import Path

import torch

from misc.config.load import compose_config
from misc.deploy.arguments import add_student, weights_of
from misc.deploy.load import load_server
from misc.devices import peak_memory, usable_device
from misc.errors import UserError, exit_on_user_error
from misc.progress import progress_bar
from model.coding.bitstream import BitstreamError, read_packed
from model.halves import ServerHalf

TOO_LONG_S = 10
# 128 x 128, 64 x 64, 1 x 16,384, 16,384 x 1 and 127 x 128, as encoded in a header.
LARGEST_SIZES = (b"\x80", b"\x40", b"\0\x01\x80\x80\x01", b"\0\x80\x80\x01\x01", b"\0\x7f\x80\x01")


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("streams", nargs="+", type=Path, metavar="STREAM", help="files that scripts/encode.py wrote")
    parser.add_argument("--count", type=int, default=100_000, help="mutations (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: %(default)s)")
    add_student(parser)
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    device = usable_device(args.device)
    config = compose_config(args.config, args.set, mode="test")
    server = load_server(config, weights_of(config, args)).to(device)
    originals = [read_packed(path) for path in args.streams]
    for original in originals:
        server.latents([original])  # must not raise
    torch.set_num_threads(1)
    outcomes, longest = run(server, originals, args.count, random.Random(args.seed))
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:<16} {outcome:<60} {count:>8,}")
    print(f"{args.count:,} mutations, the slowest took {longest:.2f} s; {peak_memory(device)} of memory at most")


def run(server: ServerHalf, originals: list[bytes], count: int, chance: random.Random) -> tuple[Counter, float]:
    """Return the counts of (checksum, outcome) and the longest time in seconds."""
    outcomes, longest = Counter(), 0.0
    for number in progress_bar(range(count), "mutations", count, unit="streams"):
        is_resealed = bool(number % 2)
        mutant = mutated(chance.choice(originals), originals, chance)
        if is_resealed:
            mutant = resealed(mutant)
        elif mutant in originals:
            continue
        start = time.perf_counter()
        faulthandler.dump_traceback_later(TOO_LONG_S, exit=True)  # ends infinite loops, too
        outcome = decode(server, mutant)
        faulthandler.cancel_dump_traceback_later()
        longest = max(longest, time.perf_counter() - start)
        if outcome == "decoded" and not is_resealed:
            raise UserError(f"mutation {number} was decoded in spite of its checksum: {mutant.hex()}")
        outcomes["right checksum" if is_resealed else "wrong checksum", outcome] += 1
    return outcomes, longest


def decode(server: ServerHalf, packed: bytes) -> str:
    """Return "decoded", or the error message without its digits."""
    try:
        y_hat = server.latents([packed])
    except BitstreamError as error:
        return f"refused: {''.join(letter for letter in str(error) if not letter.isdigit())[:50]}"
    if not torch.isfinite(y_hat).all():
        raise UserError(f"a latent that is not finite: {packed.hex()}")
    return "decoded"


def mutated(packed: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return the bytes after one to four random changes."""
    mutant = bytearray(packed)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(mutant) + 1)
        kind = chance.choice(("flip", "set", "insert", "delete", "truncate", "extend", "splice", "size"))
        if kind == "flip" and place < len(mutant):
            mutant[place] ^= 1 << chance.randrange(8)
        elif kind == "set" and place < len(mutant):
            mutant[place] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        elif kind == "insert":
            mutant[place:place] = chance.randbytes(chance.randint(1, 8))
        elif kind == "delete":
            del mutant[place : place + chance.randint(1, 8)]
        elif kind == "truncate":
            del mutant[place:]
        elif kind == "extend":
            mutant += chance.choice((b"\xff", b"\0", chance.randbytes(1))) * chance.choice((1, 8, 1000))
        elif kind == "splice":
            mutant[place:] = chance.choice(others)[place:]
        elif kind == "size":
            mutant[6:7] = chance.choice(LARGEST_SIZES)
    return bytes(mutant)


def resealed(packed: bytes) -> bytes:
    """Return the bytes with their last four replaced by a valid checksum."""
    body = packed[:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")


if __name__ == "__main__":
    main()
