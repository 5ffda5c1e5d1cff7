// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "EdgeresSample",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "EdgeresSample", targets: ["EdgeresSample"])],
    targets: [
        .target(name: "Preprocess"),
        .target(name: "EdgeresSample", dependencies: ["Preprocess"]),
        .testTarget(
            name: "EdgeresSampleTests", dependencies: ["EdgeresSample"],
            resources: [.copy("bundle")]),
    ],
    cxxLanguageStandard: .cxx17
)
