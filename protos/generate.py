"""Makes gen/: Python stubs, their types and the descriptor set, from the .proto files."""

import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import google.api
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from grpc_tools import protoc

PROTOS = Path(__file__).parent
GEN = PROTOS.parent / "gen"
VALIDATE = "buf/validate/validate.proto"
# Envoy turns an error into JSON only when it knows every detail type by name.
ERROR_DETAILS = ["google/rpc/error_details.proto", "google/rpc/status.proto"]


def validation_rules() -> descriptor_pb2.FileDescriptorSet:
    """The descriptor of buf/validate/validate.proto, which protovalidate's wheel carries, and what it imports."""
    from protovalidate._gen.buf.validate import validate_pb

    rules = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2, any_pb2):
        module.DESCRIPTOR.CopyToProto(rules.file.add())
    rules.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    return rules


def run_protoc(*arguments: str) -> None:
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin={path}" for path in (scripts / "protoc-gen-mypy_grpc",) if path.exists()]
    if protoc.main(["protoc", *plugins, *arguments]) != 0:
        sys.exit("protoc refused the .proto files: see the lines above")


def main() -> None:
    well_known = str(files("grpc_tools") / "_proto")
    googleapis = str(Path(next(iter(google.api.__path__))).parent.parent)
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        rules = Path(scratch, "validate.binpb")
        rules.write_bytes(validation_rules().SerializeToString())
        made = Path(scratch, "gen")
        made.mkdir()
        imports = [f"-I{PROTOS}", f"-I{googleapis}", f"-I{well_known}", f"--descriptor_set_in={rules}"]
        # protoc looks in one of the two places only, so the well-known types come from the include path here.
        run_protoc(*imports, f"--python_out={made}", f"--pyi_out={made}", f"--grpc_python_out={made}",
                   f"--mypy_grpc_out={made}", *sources)
        run_protoc(*imports, f"--python_out={made}", f"--pyi_out={made}", VALIDATE)
        run_protoc(*imports, "--include_imports", "--include_source_info",
                   f"--descriptor_set_out={made / 'descriptors.binpb'}", *sources, *ERROR_DETAILS)
        shutil.rmtree(GEN, ignore_errors=True)
        shutil.copytree(made, GEN)


if __name__ == "__main__":
    main()
