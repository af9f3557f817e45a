"""A stand-in for scripts/serve.py and scripts/export.py."""
import hashlib, json, time, sys
from pathlib import Path
import numpy as np, torch, uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
import mimetypes
from misc.config.load import compose_config
from misc.deploy import load_edge, load_server
import misc.deploy
PAGE = Path(misc.deploy.__file__).parent / "page"
CONFIG = "config/quickstart/sg_resnet.yaml"
WEIGHTS = "resources/weights/quickstart/sg_resnet.safetensors"
mimetypes.add_type("text/javascript", ".mjs")

def export(folder):
    edge = load_edge(compose_config(CONFIG, mode="test"), WEIGHTS)
    codec = edge.entropy_model
    from compressai.entropy_models import EntropyBottleneck
    eb = next(m for m in codec.modules() if isinstance(m, EntropyBottleneck))
    med = eb.quantiles.detach()[:, :, 1:2].clone()
    class Net(torch.nn.Module):
        def __init__(s): super().__init__(); s.encoder = edge.encoder; s.register_buffer("m", med)
        def forward(s, x):
            y = s.encoder(x)
            nf = (~torch.isfinite(y)).to(torch.int32).sum(1, dtype=torch.int32)
            return nf, (y - s.m).round().clamp(-8192, 8192).to(torch.int32)
    D = torch.export.Dim.DYNAMIC
    p = torch.onnx.export(Net().eval(), (torch.randn(2, 3, 64, 80),), dynamo=True, dynamic_shapes=({0: D, 2: D, 3: D},), input_names=["x"], output_names=["nonfinite", "y"])
    p.save(folder / "encoder.onnx")
    cdf, n, off = eb.quantized_cdf.tolist(), eb.cdf_length.tolist(), eb.offset.tolist()
    (folder / "edge.json").write_text(json.dumps({"format": 1, "stream": 2, "fingerprint": edge.fingerprint().hex(), "precision": "float32",
      "sha256": hashlib.sha256((folder / "encoder.onnx").read_bytes()).hexdigest(),
      "transform": [{"op": "resize", "size": 64}, {"op": "center_crop", "height": 64, "width": 64}, {"op": "scale", "factor": float(np.float32(1/255))},
                    {"op": "normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}],
      "max_positions": 16384, "stride": 1, "order": [{"symbols": "y", "indexes": None, "tables": "y", "positions": "all"}],
      "tables": {"y": {"offsets": off, "cdf": [r[:k] for r, k in zip(cdf, n)]}}, "classes": None}))
    return edge

def main(folder, port):
    folder = Path(folder)
    if not (folder / "edge.json").exists(): export(folder)
    fp = json.loads((folder / "edge.json").read_text())["fingerprint"]
    server = load_server(compose_config(CONFIG, mode="test"), WEIGHTS)
    app = FastAPI()
    ex = sorted((folder / "digits" / "val").glob("*/*.png"))
    ex = list({p.parent.name: p for p in ex}.values())[:8]
    @app.get("/model")
    def model(): return {"models": [{"fingerprint": fp, "config": CONFIG, "num_classes": 10, "class_names": None, "edge": f"/edge/{fp}/", "examples": [f"/examples/{fp}/{i}" for i in range(len(ex))]}]}
    @app.post("/classify")
    async def classify(r: Request):
        b = await r.body(); t = time.perf_counter()
        p = server.decode([b])[0].softmax(0).topk(5)
        return {"fingerprint": fp, "classes": [{"index": i, "name": f"class {i}", "probability": q} for q, i in zip(p.values.tolist(), p.indices.tolist())], "bytes_received": len(b), "milliseconds": 1000 * (time.perf_counter() - t)}
    @app.get("/examples/{f}/{i}")
    def example(f: str, i: int): return FileResponse(ex[i])
    @app.get("/")
    def index(): return FileResponse(PAGE / "index.html")
    app.mount("/page", StaticFiles(directory=PAGE)); app.mount(f"/edge/{fp}", StaticFiles(directory=folder))
    uvicorn.run(app, port=port, log_level="warning")
if __name__ == "__main__": main(sys.argv[1], int(sys.argv[2]))
