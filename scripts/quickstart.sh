#!/usr/bin/env bash
# From a fresh clone to a trained student, its test and a report, on digits on photographs; needs only Python 3.11+.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

WORK=resources/quickstart
DIGITS=resources/datasets/digits
MAPS=resources/saliency_maps/digits_resnet
CONFIG=config/quickstart/sg_resnet.yaml

step() { printf '\n== %s\n' "$*"; }

step "Environment"
make_environment requirements.txt
PYTHON=$VENV/bin/python
main() { "$PYTHON" main_classification_torchdistill.py "$@"; }
maps() {
    "$PYTHON" saliency_maps/cam_prep/cam_map_generation.py --config "$CONFIG" --batch_size 50 \
        --saliency_type XGradCAM --eigen_smooth --mix_layers --patch_cam --target_dim 28 "$@"
}

step "1/6 Data: 14,000 digits on photographs (half a minute)"
"$PYTHON" scripts/prepare_dataset.py digits --output "$DIGITS"

step "2/6 Testing the shipped students through real bytes (two minutes)"
for student in resnet resnet_hyperprior swin; do
    main --config "config/quickstart/sg_$student.yaml" --test_only --run_dir "$WORK/shipped_$student"
done

step "3/6 Saliency maps of the teacher (two minutes)"
maps --input "$DIGITS/train" --output "$MAPS/train"
maps --input "$DIGITS/val" --output "$MAPS/val"

step "4/6 Training a student from scratch, four epochs instead of thirteen (five minutes)"
main --config "$CONFIG" --skip_ckpt --run_dir "$WORK/trained_resnet" \
    --set train.stage1.num_epochs=2 --set train.stage2.num_epochs=2

step "5/6 JPEG and WebP of the same images (one minute)"
"$PYTHON" scripts/evaluate_codecs.py --config "$CONFIG" --output "$WORK/codecs.csv" --codecs JPEG WebP

step "6/6 Report"
"$PYTHON" scripts/quickstart_report.py --run_dir "$WORK/shipped_resnet_hyperprior" \
    --run_dir "$WORK/shipped_resnet" --run_dir "$WORK/trained_resnet" \
    --codecs "$WORK/codecs.csv" --maps "$MAPS/val" --dataset "$DIGITS" --output "$WORK/report"
