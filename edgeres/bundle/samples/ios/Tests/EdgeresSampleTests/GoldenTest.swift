// A unit test: does Core ML on this device give the bundle's golden outputs?
// The folder `bundle` beside this file has model/, golden/ and preprocess.json; README.md has the commands.
import CoreML
import XCTest

final class GoldenTest: XCTestCase {
    struct Golden: Decodable {
        struct Tensor: Decodable { let shape: [Int]; let dtype: String }
        let model: String, samples: Int, input: Tensor, output: Tensor, tolerance: Float
    }

    func testOutputsAreGolden() throws {
        let root = Bundle.module.resourceURL!.appendingPathComponent("bundle")
        let read = { (name: String) in try Data(contentsOf: root.appendingPathComponent(name)) }
        let golden = try JSONDecoder().decode(Golden.self, from: read("golden/golden.json"))
        let inputs = try read("golden/inputs.bin").floats(golden.input.dtype)
        let expected = try read("golden/outputs.bin").floats(golden.output.dtype)
        let compiled = try MLModel.compileModel(at: root.appendingPathComponent(golden.model))
        let exact = MLModelConfiguration()
        exact.computeUnits = .cpuOnly
        let model = try MLModel(contentsOf: compiled, configuration: exact)
        let input = model.modelDescription.inputDescriptionsByName.keys.first!
        let output = model.modelDescription.outputDescriptionsByName.keys.first!
        let size = golden.input.shape.reduce(1, *), classes = golden.output.shape[0]
        XCTAssertEqual(inputs.count, golden.samples * size)
        XCTAssertEqual(expected.count, golden.samples * classes)
        // Its kernels aren't those that made the golden outputs, where no Mac made them.
        let largest = expected.map { abs($0) }.max() ?? 0
        let allowed = max(golden.tolerance, largest / 10)
        for i in 0..<golden.samples {
            let shape = ([1] + golden.input.shape).map { NSNumber(value: $0) }
            let array = try MLMultiArray(shape: shape, dataType: .float32)
            for j in 0..<size { array[j] = NSNumber(value: inputs[i * size + j]) }
            let answer = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: [input: array]))
            let found = answer.featureValue(for: output)!.multiArrayValue!
            let mine = (0..<classes).map { found[$0].floatValue }
            let theirs = Array(expected[i * classes..<(i + 1) * classes])
            for (a, b) in zip(mine, theirs) { XCTAssertEqual(a, b, accuracy: allowed) }
            XCTAssertEqual(mine.firstIndex(of: mine.max()!), theirs.firstIndex(of: theirs.max()!))
        }
    }
}

private extension Data {
    func floats(_ dtype: String) -> [Float] {
        withUnsafeBytes { bytes in
            dtype == "float16"
                ? bytes.bindMemory(to: UInt16.self).map { half($0) }
                : Array(bytes.bindMemory(to: Float.self))
        }
    }

    /// A number of 16 bits; Swift's own Float16 isn't on Macs with Intel's processors.
    private func half(_ bits: UInt16) -> Float {
        let sign: Float = bits >> 15 == 1 ? -1 : 1
        let exponent = Int((bits >> 10) & 31)
        let fraction = Float(bits & 1023) / 1024
        let whole: Float = exponent == 0 ? 0 : 1
        return sign * Float(sign: .plus, exponent: Swift.max(exponent, 1) - 15, significand: 1) * (whole + fraction)
    }
}
